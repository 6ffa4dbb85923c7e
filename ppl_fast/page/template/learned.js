// What was learned: the prior over training, the links by weight, the learning curves, the options.

let markStep = () => {}; // marks a step in the learning curve
let shownStep = null; // of the prior

function startPrior() {
  const { steps, points, opacities } = page.prior;
  const svg = byId("prior-pose");
  let shown = steps.length - 1;
  const draw = () => {
    const unit = setPlain(svg);
    drawPose(svg, points[shown], opacities[shown], unit);
  };
  const step = slider("step", steps.length - 1, shown, (index) => {
    shown = index;
    draw();
    shownStep = steps[shown];
    markStep();
    return steps[shown] === null ? "as saved" : `step ${thousands(steps[shown])}`;
  });
  redraws.push(draw);
  if (steps.length > 1) player("step-play", step, () => 250);
  else byId("step-play").closest(".buttons").remove();
  step.refresh();
}

function startLinks() {
  const order = page.weights.map((_, e) => e).sort((a, b) => page.weights[b] - page.weights[a]);
  const most = page.weights[order[0]] || 1;
  byId("links-about").textContent =
    `${page.links.length} links between ${page.colours.length} keypoints, each with a learned weight. ` +
    "The bar at the top says how many of them are listed and drawn.";
  const list = () =>
    fillTable(
      byId("link-table"),
      ["", "link", "weight", ""],
      order.slice(0, drawing.links).map((e, rank) => {
        const bar = element("span", { className: "bar" });
        bar.style.width = `${(100 * page.weights[e]) / most}%`;
        const [i, j] = page.links[e];
        return [String(rank + 1), `${NAMES[i]} – ${NAMES[j]}`, digits(page.weights[e], 3), bar];
      }),
    );
  drawMatrix(most);
  redraws.push(list);
  list();
}

function drawMatrix(most) {
  const svg = byId("matrix");
  const count = page.colours.length;
  svg.setAttribute("viewBox", `-1.2 -1.2 ${count + 1.4} ${count + 1.4}`);
  for (let i = 0; i < count; i++) {
    for (const [x, y] of [[i + 0.5, -0.6], [-0.6, i + 0.5]]) {
      shape(svg, "circle", { cx: x, cy: y, r: 0.45 }).style.fill = page.colours[i];
      shape(svg, "text", { x, y, "font-size": 0.5, "stroke-width": 0.15 }).textContent = String(i);
    }
  }
  shape(svg, "rect", { x: 0, y: 0, width: count, height: count, class: "cell" });
  page.links.forEach(([i, j], e) => {
    for (const [x, y] of [[i, j], [j, i]]) {
      const cell = shape(svg, "rect", { x: x + 0.05, y: y + 0.05, width: 0.9, height: 0.9 });
      cell.setAttribute("fill-opacity", page.weights[e] / most);
      shape(cell, "title").textContent = `${NAMES[i]} – ${NAMES[j]}: ${digits(page.weights[e], 3)}`;
    }
  });
}

function startTraining() {
  const { steps, terms } = page.training;
  const [svg, term] = [byId("curve"), byId("term")];
  term.append(...Object.keys(terms).map((name) => element("option", { value: name }, name)));
  const last = Math.max(steps.at(-1), 1);
  const draw = () => {
    const values = terms[term.value].map((value) => (value > 0 ? Math.log10(value) : null));
    const found = values.filter((value) => value !== null);
    const [low, high] = [Math.min(...found), Math.max(...found)];
    const y = (value) => 95 - (90 * (value - low)) / (high - low || 1);
    svg.replaceChildren();
    svg.setAttribute("viewBox", "0 0 1000 100");
    let path = "";
    values.forEach((value, i) => {
      if (value === null) return;
      const pen = i === 0 || values[i - 1] === null ? "M" : "L";
      path += `${pen}${((1000 * steps[i]) / last).toFixed(1)},${y(value).toFixed(2)}`;
    });
    shape(svg, "path", { d: path });
    if (shownStep !== null) {
      const x = (1000 * shownStep) / last;
      shape(svg, "line", { x1: x, x2: x, y1: 0, y2: 100, class: "now" });
    }
    const [least, most] = [low, high].map((value) => (10 ** value).toPrecision(3));
    const range = found.length ? `${least} to ${most}, logarithmic` : "never above zero";
    const at = shownStep === null ? "" : `; the line is at step ${thousands(shownStep)}, as the prior above`;
    byId("curve-caption").textContent = `Up to step ${thousands(last)}; ${range}${at}.`;
    svg.setAttribute("aria-label", `${term.value} over training, ${range}`);
  };
  term.addEventListener("change", draw);
  markStep = draw;
  draw();
}

function startOptions() {
  fillTable(byId("options"), ["option", "value"], Object.entries(page.options));
}
