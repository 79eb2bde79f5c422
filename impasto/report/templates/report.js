"use strict";
// Lays a group's pictures over each other: what lies left of the handle shows one, what lies right of it the other.
(() => {
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  const choice = (label, options, chosen) => {
    const select = element("select");
    options.forEach((text, index) => select.append(element("option", { value: String(index), textContent: text, selected: index === chosen })));
    return [element("label", {}, label, select), select];
  };

  const ZOOMS = [["whole", 0], ["100 %", 1], ["200 %", 2], ["400 %", 4], ["800 %", 8]];

  function compare(group) {
    const pictures = [...group.querySelectorAll("img")];
    if (pictures.length < 2) return;
    const names = pictures.map((picture) => picture.dataset.name);
    const [height, width] = [Number(group.dataset.height), Number(group.dataset.width)];
    const [leftLabel, left] = choice("left", names, 0);
    const [rightLabel, right] = choice("right", names, 1);
    const [zoomLabel, zoom] = choice("size", ZOOMS.map(([text]) => text), 0);
    const sideBySide = element("button", { type: "button", textContent: "side by side" });
    const under = element("img", { alt: "", draggable: false });
    const over = element("img", { alt: "", draggable: false });
    const handle = element("span", { className: "handle" });
    const canvas = element("div", { className: "canvas" }, under, over, handle);
    const view = element("div", { className: "window", tabIndex: -1 }, canvas);
    const range = element("input", { type: "range", min: "0", max: "100", step: "1", value: "50" });
    const [leftName, rightName] = [element("span"), element("span")];
    const sides = element("div", { className: "sides" }, leftName, rightName);
    const stage = element(
      "div", { className: "stage" },
      element("div", { className: "tools" }, leftLabel, rightLabel, zoomLabel, sideBySide), view, range,
      sides,
    );
    group.querySelector(".views").before(stage);
    group.classList.add("comparing");

    const place = () => {
      const share = Number(range.value) / 100;
      const x = view.scrollLeft + share * view.clientWidth;
      over.style.clipPath = `inset(0 ${Math.max(0, canvas.clientWidth - x)}px 0 0)`;
      handle.style.left = `${x}px`;
      const shown = Math.min(view.clientHeight, canvas.clientHeight);
      handle.style.setProperty("--middle", `${view.scrollTop + shown / 2}px`);
      range.setAttribute("aria-valuetext", `${range.value} % ${names[left.value]}, the rest ${names[right.value]}`);
    };
    const show = () => {
      over.src = pictures[left.value].src;
      under.src = pictures[right.value].src;
      leftName.textContent = `◂ ${names[left.value]}`;
      rightName.textContent = `${names[right.value]} ▸`;
      range.setAttribute("aria-label", `Compare ${names[left.value]} with ${names[right.value]}`);
      place();
    };
    const resize = () => {
      const times = ZOOMS[zoom.value][1];
      const middle = [view.scrollLeft + view.clientWidth / 2, view.scrollTop + view.clientHeight / 2];
      const before = canvas.clientWidth || 1;
      view.classList.toggle("zoomed", times > 0);
      view.tabIndex = times > 0 ? 0 : -1;
      canvas.classList.toggle("pixels", times > 1);
      // A whole picture is never higher than the screen, so that its slider is on it, too.
      const widest = `${times ? width * times : Math.floor((0.8 * window.innerHeight * width) / height)}px`;
      for (const part of [view, range, sides]) part.style.maxWidth = widest;
      canvas.style.width = times ? `${width * times}px` : "100%";
      canvas.style.aspectRatio = `${width} / ${height}`;
      const grown = canvas.clientWidth / before;
      view.scrollTo(middle[0] * grown - view.clientWidth / 2, middle[1] * grown - view.clientHeight / 2);
      place();
    };
    const follow = (event) => {
      const box = view.getBoundingClientRect();
      range.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
      place();
    };
    let drag = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const pans = view.classList.contains("zoomed") && event.target !== handle;
      if (pans && event.pointerType === "touch") return;
      drag = pans ? { x: event.clientX + view.scrollLeft, y: event.clientY + view.scrollTop } : "split";
      canvas.setPointerCapture(event.pointerId);
      if (drag === "split") follow(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag === "split") follow(event);
      else if (drag) view.scrollTo(drag.x - event.clientX, drag.y - event.clientY);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; });
    range.addEventListener("input", place);
    view.addEventListener("scroll", place);
    for (const select of [left, right]) select.addEventListener("change", show);
    zoom.addEventListener("change", resize);
    window.addEventListener("resize", resize);
    sideBySide.addEventListener("click", () => {
      const comparing = group.classList.toggle("comparing");
      for (const part of [view, range, sides]) part.hidden = !comparing;
      for (const label of [leftLabel, rightLabel, zoomLabel]) label.hidden = !comparing;
      sideBySide.textContent = comparing ? "side by side" : "over each other";
      if (comparing) resize();
    });
    show();
    resize();
  }

  document.querySelectorAll(".pictures").forEach(compare);
})();
