// What impasto's runtime does around a graph, by the same rules: see runtime/inference/ in the repository, which tests compare this with.
// A picture is {data: Uint8Array of RGB, height, width}. A spec is what a package's manifest says of a model.

export const TILE = 1024;
export const WHOLE_PIXELS = 1920 * 1280;
const PHOTO = "photo";

const roundUp = (length, multiple) => Math.ceil(length / multiple) * multiple;

// To the nearest whole number, of two the even one, as NumPy does.
export const roundEven = (value) => {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
};

// Windows that cover `length`; a kept place is at least `overlap` away from a window's end, unless that is the picture's own.
export function spans(length, window, overlap) {
  if (window >= length) return [{ start: 0, from: 0, to: length }];
  const step = window - 2 * overlap;
  if (step < 1) throw new Error(`a tile of ${window} positions is too small for an overlap of ${overlap} on each side`);
  const starts = [];
  for (let start = 0; start + window < length; start += step) starts.push(start);
  starts.push(length - window);
  let kept = 0;
  return starts.map((start) => {
    const to = start + window === length ? length : start + window - overlap;
    const span = { start, from: kept, to };
    kept = to;
    return span;
  });
}

export function planTiles(spec, height, width) {
  const { multiple, minimum } = spec.size;
  const side = (length) => roundUp(Math.max(length + 2 * spec.border, minimum), multiple);
  const padded = [side(height), side(width)];
  const plan = { padded, window: padded, tiles: [] };
  if (padded[0] * padded[1] <= WHOLE_PIXELS || spec.receptive_field === null) return plan;
  const overlap = roundUp(spec.receptive_field, multiple);
  const window = roundUp(Math.max(TILE, 4 * overlap), multiple);
  plan.window = [Math.min(window, padded[0]), Math.min(window, padded[1])];
  const columns = spans(padded[1], plan.window[1], overlap);
  for (const row of spans(padded[0], plan.window[0], overlap)) for (const column of columns) plan.tiles.push([row, column]);
  return plan;
}

// For each of `whole` places, of which `length` from `start` on are a picture's own, the picture's place that it shows.
function reflected(start, length, whole) {
  const period = Math.max(2 * (length - 1), 1);
  return Int32Array.from({ length: whole }, (_, index) => {
    const place = Math.abs(index - start) % period;
    return Math.min(place, period - place);
  });
}

export function reflect(image, top, left, [height, width]) {
  if (height === image.height && width === image.width) return image;
  const [rows, columns] = [reflected(top, image.height, height), reflected(left, image.width, width)];
  const data = new Uint8Array(height * width * 3);
  for (let y = 0, to = 0; y < height; y += 1) {
    const row = rows[y] * image.width;
    for (let x = 0; x < width; x += 1, to += 3) {
      const from = (row + columns[x]) * 3;
      data[to] = image.data[from];
      data[to + 1] = image.data[from + 1];
      data[to + 2] = image.data[from + 2];
    }
  }
  return { data, height, width };
}

export function cut(image, top, left, height, width) {
  const data = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y += 1) {
    const from = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(from, from + width * 3), y * width * 3);
  }
  return { data, height, width };
}

function paste(target, source, [toTop, toLeft], [fromTop, fromLeft], [height, width]) {
  for (let y = 0; y < height; y += 1) {
    const from = ((fromTop + y) * source.width + fromLeft) * 3;
    target.data.set(source.data.subarray(from, from + width * 3), ((toTop + y) * target.width + toLeft) * 3);
  }
}

// A small square view of the whole picture: each cell is the mean of up to 8 x 8 pixels spread over its part.
export function thumbnail(image, side) {
  const samples = [image.height, image.width].map((length) => Math.min(8, Math.ceil(length / side)));
  const places = (length, count) =>
    Int32Array.from({ length: side * count }, (_, index) => Math.trunc(((index + 0.5) * length) / (side * count)));
  const [rows, columns] = [places(image.height, samples[0]), places(image.width, samples[1])];
  const data = new Uint8Array(side * side * 3);
  for (let cell = 0; cell < side * side; cell += 1) {
    const [row, column] = [Math.floor(cell / side) * samples[0], (cell % side) * samples[1]];
    for (let channel = 0; channel < 3; channel += 1) {
      let sum = 0;
      for (let y = row; y < row + samples[0]; y += 1)
        for (let x = column; x < column + samples[1]; x += 1) sum += image.data[(rows[y] * image.width + columns[x]) * 3 + channel];
      data[cell * 3 + channel] = roundEven(Math.fround(sum / (samples[0] * samples[1])));
    }
  }
  return data;
}

// One share for each of a network's styles: `strength` of the wanted one, the rest for the photo itself.
export function mixture(styles, wanted, strength) {
  const shares = new Float32Array(styles.length);
  if (!styles.length) return shares;
  const chosen = styles.indexOf(wanted ?? styles.find((name) => name !== PHOTO));
  if (chosen < 0) throw new Error(`this network does not know the style ${wanted}`);
  const photo = styles.indexOf(PHOTO);
  shares[chosen] = photo < 0 ? 1 : strength;
  if (photo >= 0) shares[photo] += 1 - strength;
  return shares;
}

export function drawnSize(height, width, longest) {
  if (!longest || Math.max(height, width) <= longest) return [height, width];
  const share = longest / Math.max(height, width);
  return [height, width].map((side) => Math.max(1, roundEven(side * share)));
}

// Of each of `result` pixels in a row, which of `source` it is a sum of, and how much of each.
function means(source, result) {
  return Array.from({ length: result }, (_, index) => {
    const [begin, end] = [(index * source) / result, ((index + 1) * source) / result];
    const taps = [];
    for (let place = Math.floor(begin); place < end && place < source; place += 1) {
      const shared = Math.min(end, place + 1) - Math.max(begin, place);
      if (shared > 0) taps.push([place, (shared * result) / source]);
    }
    return taps;
  });
}

// Cubic convolution: Keys 1981, a = -1/2.
function cubics(source, result) {
  return Array.from({ length: result }, (_, index) => {
    const middle = ((index + 0.5) * source) / result - 0.5;
    return [-1, 0, 1, 2].map((step) => {
      const place = Math.floor(middle) + step;
      const distance = Math.abs(middle - place);
      const weight = distance < 1 ? (1.5 * distance - 2.5) * distance ** 2 + 1 : ((-0.5 * distance + 2.5) * distance - 4) * distance + 2;
      return [Math.min(Math.max(place, 0), source - 1), weight];
    });
  });
}

function resized(image, height, width, taps) {
  const [rows, columns] = [taps(image.height, height), taps(image.width, width)];
  const wide = new Float32Array(image.height * width * 3);
  for (let y = 0, to = 0; y < image.height; y += 1)
    for (let x = 0; x < width; x += 1)
      for (let channel = 0; channel < 3; channel += 1, to += 1) {
        let sum = 0;
        for (const [place, weight] of columns[x]) sum += weight * image.data[(y * image.width + place) * 3 + channel];
        wide[to] = sum;
      }
  const data = new Uint8Array(height * width * 3);
  for (let y = 0, to = 0; y < height; y += 1)
    for (let x = 0; x < width * 3; x += 1, to += 1) {
      let sum = 0;
      for (const [place, weight] of rows[y]) sum += weight * wide[place * width * 3 + x];
      data[to] = Math.min(Math.max(roundEven(sum), 0), 255);
    }
  return { data, height, width };
}

export class Model {
  // ort: the library. spec: of the manifest. sessions: {model, context}, of which context may be missing.
  constructor(ort, spec, sessions) {
    Object.assign(this, { ort, spec, sessions });
  }

  // Returns a picture of scale times the size. options: style, strength, and progress, which is called with tiles done and all.
  async draw(image, { style, strength = 1, progress = () => {} } = {}) {
    const { spec } = this;
    if (spec.strength && strength === 0) return image;
    const [height, width] = drawnSize(image.height, image.width, spec.working_size);
    if (height === image.height && width === image.width) return this.#drawWhole(image, style, strength, progress);
    const drawn = await this.#drawWhole(resized(image, height, width, means), style, strength, progress);
    return resized(drawn, image.height, image.width, cubics);
  }

  async #drawWhole(image, style, strength, progress) {
    const { spec } = this;
    const extra = await this.#extra(image, style, strength);
    const plan = planTiles(spec, image.height, image.width);
    const padded = reflect(image, spec.border, spec.border, plan.padded);
    const scale = spec.scale;
    const tiles = plan.tiles.length ? plan.tiles : [plan.padded.map((length) => ({ start: 0, from: 0, to: length }))];
    const whole = { height: padded.height * scale, width: padded.width * scale };
    whole.data = new Uint8Array(whole.height * whole.width * 3);
    for (const [index, [row, column]] of tiles.entries()) {
      progress(index, tiles.length);
      const tile = cut(padded, row.start, column.start, ...plan.window);
      const drawn = await this.#run(tile, extra);
      const at = [row, column].map((span) => span.from * scale);
      const inside = [row, column].map((span) => (span.from - span.start) * scale);
      const kept = [row, column].map((span) => (span.to - span.from) * scale);
      paste(whole, drawn, at, inside, kept);
    }
    progress(tiles.length, tiles.length);
    return cut(whole, spec.border * scale, spec.border * scale, image.height * scale, image.width * scale);
  }

  async #run(tile, extra) {
    const { model } = this.sessions;
    const feeds = { [model.inputNames[0]]: new this.ort.Tensor("uint8", tile.data, [1, tile.height, tile.width, 3]) };
    if (extra) feeds[model.inputNames[1]] = extra;
    const { data, dims } = (await model.run(feeds))[model.outputNames[0]];
    return { data: new Uint8Array(data), height: Number(dims[1]), width: Number(dims[2]) };
  }

  // The graph's second input: a restorer's strength, or what the context graph makes of the whole picture.
  async #extra(image, style, strength) {
    const { ort, spec, sessions } = this;
    if (spec.strength) return new ort.Tensor("float32", Float32Array.of(strength), [1, 1]);
    if (!sessions.context) return null;
    const side = spec.thumbnail;
    const small = new ort.Tensor("uint8", thumbnail(image, side), [1, side, side, 3]);
    const { context } = sessions;
    const found = (await context.run({ [context.inputNames[0]]: small }))[context.outputNames[0]];
    if (!spec.styles.length) return found;
    const shares = mixture(spec.styles, style, strength);
    const length = Number(found.dims[2]);
    const mixed = new Float32Array(length);
    shares.forEach((share, index) => { for (let at = 0; at < length; at += 1) mixed[at] += share * found.data[index * length + at]; });
    return new ort.Tensor("float32", mixed, [1, length]);
  }
}
