// Elements, and the drawing of a pose: what all parts of the page share.
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const NAMES = page.colours.map((_, i) => page.names?.[i] ?? String(i));

// What all drawings show: the heaviest links, numbers, and the keypoint that is picked out, or -1.
const drawing = { links: page.linksShown, numbers: true, picked: -1 };
// What a pose is made of: keypoints, or the joints that were named from them, of which one is picked out by itself.
const KEYPOINTS = { what: "keypoint", names: NAMES, colours: page.colours, links: page.links };
const JOINTS = page.joints && { what: "joint", picked: -1, ...page.joints };
const redraws = []; // functions that draw anew what depends on it

const SVG = document.querySelector("svg").namespaceURI;
const byId = (id) => document.getElementById(id);

/** An element of HTML with properties and children, or texts. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** An element of SVG with attributes, appended to `parent`. */
function shape(parent, name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

const thousands = (number) => number.toLocaleString("en");
const digits = (number, count = 4) => (number === null ? "–" : number.toFixed(count));
const known = (point) => point[0] !== null && point[1] !== null;

/** The class of what belongs to these keypoints: faded where another one is picked out. */
const fadedUnless = (...keypoints) => fadedOf(KEYPOINTS, keypoints);
const pickedOf = (parts) => parts.picked ?? drawing.picked;
const fadedOf = (parts, numbers) => (pickedOf(parts) < 0 || numbers.includes(pickedOf(parts)) ? "" : "faded");

/** Numbers of the links that are drawn, the faintest first. */
function heaviest(opacities) {
  const order = opacities.map((_, e) => e).sort((a, b) => opacities[b] - opacities[a]);
  return order.slice(0, drawing.links).reverse();
}

/**
 * Draw a pose into a group of its own.
 * points: (x, y) a keypoint; opacities: a link each; unit: a hundredth of the picture's side, in the points' units.
 * kind "ghost" or "dashed" draws lines and rings alone; parts JOINTS draws joints with all of their bones.
 */
function drawPose(svg, points, opacities, unit, kind = "", parts = KEYPOINTS) {
  const { names, colours, links, what } = parts;
  const group = shape(svg, "g", { class: `pose ${kind}` });
  for (const e of parts === KEYPOINTS ? heaviest(opacities) : links.keys()) {
    const [i, j] = links[e];
    if (!known(points[i]) || !known(points[j])) continue;
    const [[x1, y1], [x2, y2]] = [points[i], points[j]];
    const line = shape(group, "line", { x1, y1, x2, y2, class: fadedOf(parts, [i, j]), "stroke-width": 1.3 * unit });
    line.setAttribute("stroke-opacity", Math.max(opacities[e], 0.12));
    if (kind === "dashed") line.setAttribute("stroke-dasharray", `${unit} ${2 * unit}`);
    const mixed = `color-mix(in oklab, ${colours[i]}, ${colours[j]})`;
    if (!kind) line.style.stroke = `color-mix(in oklab, ${mixed} 75%, var(--lift))`;
  }
  const places = drawing.numbers && !kind ? numberPlaces(points, unit, svg.viewBox.baseVal) : [];
  points.forEach((point, i) => {
    if (!known(point)) return;
    const [cx, cy] = point;
    if (kind) {
      shape(group, "circle", { cx, cy, r: 1.4 * unit, "stroke-width": 0.5 * unit, class: fadedUnless(i) });
      return;
    }
    const mark = shape(group, "g", { class: `keypoint ${fadedOf(parts, [i])}` });
    shape(mark, "title").textContent = names[i] === String(i) ? `${what} ${i}` : `${i}: ${names[i]}`;
    shape(mark, "circle", { cx, cy, r: 2.1 * unit, class: "outer" });
    shape(mark, "circle", { cx, cy, r: 1.8 * unit, class: "inner" });
    shape(mark, "circle", { cx, cy, r: 1.4 * unit }).style.fill = colours[i];
    if (!places[i]) return;
    const [x, y] = places[i];
    shape(mark, "text", { x, y, "font-size": 3.6 * unit, "stroke-width": 0.9 * unit }).textContent = String(i);
  });
  return group;
}

/** Where the keypoints' numbers go: outwards from the middle, aside where a dot, a number or the border is. */
function numberPlaces(points, unit, border) {
  const seen = points.filter(known);
  const centre = [0, 1].map((axis) => seen.reduce((sum, point) => sum + point[axis], 0) / Math.max(seen.length, 1));
  const [height, digit, gap] = [3.4 * unit, 2.3 * unit, 2.6 * unit];
  const side = 4.2 * unit; // of a dot's box
  const dots = points.map((point) => known(point) && { x: point[0], y: point[1], width: side, height: side });
  const taken = []; // numbers that have their place
  const overlap = (p, length, q, other) =>
    Math.max(0, Math.min(p + length / 2, q + other / 2) - Math.max(p - length / 2, q - other / 2));
  const shared = (a, b) => overlap(a.x, a.width, b.x, b.width) * overlap(a.y, a.height, b.y, b.height);
  const { width: across, height: down } = border;
  const inside = { x: border.x + across / 2, y: border.y + down / 2, width: across, height: down };
  return points.map((point, i) => {
    if (!known(point)) return null;
    const outwards = Math.atan2(point[1] - centre[1], point[0] - centre[0]);
    const width = digit * String(i).length;
    const boxes = [0, 1, -1, 2, -2, 3, -3, 4].map((eighth) => {
      const angle = outwards + (eighth * Math.PI) / 4;
      const x = point[0] + (gap + width / 2) * Math.cos(angle);
      const y = point[1] + (gap + height / 2) * Math.sin(angle);
      return { x, y, width, height };
    });
    const others = [...dots.filter((dot, j) => dot && j !== i), ...taken];
    const cost = (box) => others.reduce((sum, other) => sum + shared(box, other), width * height - shared(box, inside));
    const costs = boxes.map((box) => Math.round(cost(box) / unit ** 2)); // so that what is free is free to the last bit
    const best = boxes[costs.indexOf(Math.min(...costs))];
    taken.push(best);
    return [best.x, best.y];
  });
}

/** Make an <svg> show a picture of this size; points are in its pixels, integers at their centres. */
function setPicture(svg, href, [width, height], label) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
  svg.setAttribute("aria-label", label);
  shape(svg, "image", { href, x: -0.5, y: -0.5, width, height, preserveAspectRatio: "none" });
  return Math.min(width, height) / 100;
}

/** Make an <svg> show the square of normalised coordinates, with the image's border. */
function setPlain(svg) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", "-1.1 -1.1 2.2 2.2");
  shape(svg, "rect", { x: -1, y: -1, width: 2, height: 2, class: "border", "stroke-width": 0.01 });
  return 0.02;
}

/** A slider with the text beside it; `show(value)` draws and gives the text. */
function slider(id, last, value, show) {
  const input = byId(id);
  input.max = last;
  input.value = value;
  const refresh = () => {
    const text = show(Number(input.value));
    byId(`${id}-value`).textContent = text;
    input.setAttribute("aria-valuetext", text);
  };
  input.addEventListener("input", refresh);
  return { input, refresh, set: (to) => ((input.value = to), refresh()) };
}

/** A button that moves a slider on by itself until it is pressed again, or the end is reached. */
function player(id, moved, interval) {
  const button = byId(id);
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.setAttribute("aria-pressed", "false");
  };
  const advance = () => {
    if (Number(moved.input.value) >= Number(moved.input.max)) return stop();
    moved.set(Number(moved.input.value) + 1);
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(moved.input.value) >= Number(moved.input.max)) moved.set(0);
    button.setAttribute("aria-pressed", "true");
    timer = setInterval(advance, interval());
  });
  return stop;
}

/** A table: headings, then rows of texts or elements; columns of numbers stand at the right. */
function fillTable(table, headings, rows) {
  const number = /^(–|[-\d.,]+%?)$/;
  const classes = headings.map((_, c) => (rows.every((row) => number.test(row[c])) ? "number" : ""));
  const cells = (name, texts, properties) =>
    texts.map((text, c) => element(name, { className: classes[c], ...properties }, text));
  const lines = rows.map((row) => element("tr", {}, ...cells("td", row)));
  table.replaceChildren(
    element("thead", {}, element("tr", {}, ...cells("th", headings, { scope: "col" }))),
    element("tbody", {}, ...lines),
  );
  return table;
}

/** A table in a box of its own, which scrolls where the table is too wide. */
function boxed(table, label) {
  const box = element("div", { className: "wide", tabIndex: 0 }, table);
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", label);
  return box;
}
