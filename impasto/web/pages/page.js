// The page: what a visitor chooses, and what is shown of it.
import { Model } from "./runtime.js";

const find = (id) => document.getElementById(id);
const site = JSON.parse(find("site").textContent);
const MOST_PIXELS = 12e6;

let library = null; // of ONNX Runtime Web, and how it computes
const loaded = new Map();
let photo = null;
let drawn = null;
let drawing = Promise.resolve();
let asked = 0; // drawings so far: of those that wait, only the last is made

async function openLibrary() {
  if (library) return library;
  const gpu = !new URLSearchParams(location.search).has("wasm") && navigator.gpu && (await navigator.gpu.requestAdapter().catch(() => null));
  const names = site.library[gpu ? "webgpu" : "wasm"];
  const ort = await import(names.entry);
  // Kept apart from the library's own downloads, so that its hash is checked.
  const response = await fetch(names.binary, { integrity: names.integrity });
  ort.env.wasm.wasmBinary = await response.arrayBuffer();
  ort.env.wasm.wasmPaths = { mjs: new URL(names.glue, location.href).href };
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  const threads = ort.env.wasm.numThreads;
  const why = crossOriginIsolated ? "" : ", since this server does not send the two headers that more of them want";
  const told = gpu ? "WebGPU" : `WASM, ${threads} ${threads > 1 ? "threads" : "thread"}${why}`;
  library = { ort, providers: gpu ? ["webgpu", "wasm"] : ["wasm"], told };
  return library;
}

async function openModel(name) {
  if (loaded.has(name)) return loaded.get(name);
  const { ort, providers } = await openLibrary();
  const about = site.models.find((model) => model.name === name);
  const open = async (file) => ort.InferenceSession.create(file.address, { executionProviders: providers });
  const sessions = { model: await open(about.model), context: about.context && (await open(about.context)) };
  const model = new Model(ort, about.spec, sessions);
  loaded.set(name, model);
  return model;
}

function say(text) {
  find("said").textContent = text;
}

// A canvas keeps what its context was first asked for, so every context is asked for in this way.
function context(canvas) {
  return canvas.getContext("2d", { willReadFrequently: true });
}

function pixels(canvas) {
  const { data } = context(canvas).getImageData(0, 0, canvas.width, canvas.height);
  const rgb = new Uint8Array(canvas.width * canvas.height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) rgb.set(data.subarray(from, from + 3), to);
  return { data: rgb, height: canvas.height, width: canvas.width };
}

function show(picture, canvas) {
  const shown = new ImageData(picture.width, picture.height);
  for (let from = 0, to = 0; from < picture.data.length; from += 3, to += 4) {
    shown.data.set(picture.data.subarray(from, from + 3), to);
    shown.data[to + 3] = 255;
  }
  Object.assign(canvas, { width: picture.width, height: picture.height });
  context(canvas).putImageData(shown, 0, 0);
}

async function take(file) {
  if (!file) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    say(`${file.name || "this file"} is no picture that this browser can read; try a JPEG, PNG or WebP file`);
    return;
  }
  const shrink = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const canvas = find("before");
  Object.assign(canvas, { width: Math.round(bitmap.width * shrink), height: Math.round(bitmap.height * shrink) });
  context(canvas).drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  photo = pixels(canvas);
  await draw();
}

function chosen() {
  const style = find("style").value || undefined;
  return { name: find("model").value, style, strength: Number(find("strength").value) };
}

function draw() {
  const mine = (asked += 1);
  drawing = drawing.then(() => mine === asked && drawNow()).catch((error) => say(`this did not work: ${error.message ?? error}`));
  return drawing;
}

async function drawNow() {
  if (!photo) return;
  const { name, style, strength } = chosen();
  const source = photo;
  document.body.dataset.state = "busy";
  try {
    say(`loading ${name} …`);
    const model = await openModel(name);
    await new Promise((then) => { setTimeout(then); });
    const begun = performance.now();
    const progress = (done, all) => say(all > 1 ? `drawing, part ${Math.min(done + 1, all)} of ${all} …` : "drawing …");
    drawn = await model.draw(source, { style, strength, progress });
    const spent = performance.now() - begun;
    show(drawn, find("after"));
    // Never higher than the screen, so that its slider is on it, too.
    find("stage").style.maxWidth = `calc(80vh * ${drawn.width} / ${drawn.height})`;
    find("stage").hidden = false;
    place();
    find("save").disabled = false;
    say(`${name}: ${drawn.width} × ${drawn.height} pixels in ${Math.round(spent)} ms; ${library.told}`);
  } finally {
    document.body.dataset.state = "ready";
  }
}

function place() {
  const share = find("split").value;
  find("before").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  find("handle").style.left = `${share}%`;
}

function offer() {
  const { spec, about } = site.models.find((model) => model.name === find("model").value);
  find("about").textContent = about;
  const styles = spec.styles.filter((name) => name !== "photo");
  find("style").replaceChildren(...styles.map((name) => Object.assign(document.createElement("option"), { textContent: name, value: name })));
  find("style").parentElement.hidden = styles.length === 0;
  const most = spec.strength || (spec.styles.includes("photo") ? 1 : 0);
  find("strength").max = String(most || 1);
  find("strength").value = "1";
  find("strength").parentElement.hidden = !most;
}

function save() {
  find("after").toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${find("model").value}.png` });
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

for (const id of ["file", "camera"]) find(id).addEventListener("change", (event) => take(event.target.files[0]));
find("model").addEventListener("change", () => { offer(); draw(); });
for (const id of ["style", "strength"]) find(id).addEventListener("change", draw);
find("split").addEventListener("input", place);
find("save").addEventListener("click", save);
const stage = find("pictures");
const follow = (event) => {
  const box = stage.getBoundingClientRect();
  find("split").value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
  place();
};
stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); });
stage.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
offer();
document.body.dataset.state = "ready";

// For tests and for the curious: the drawing's own pixels.
globalThis.impasto = { openModel, drawn: () => drawn, photo: () => photo };
