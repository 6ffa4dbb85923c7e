// Poses on their pictures: a slider over time, a track of how plausible they are, the least plausible first.

const LEAST = 12; // pictures listed

let currentPicture = () => null;

const average = (values) => {
  const found = values.filter((value) => value !== null);
  return found.length ? found.reduce((sum, value) => sum + value, 0) / found.length : null;
};

/** A picture by name, and for a frame its number and time. */
function called(picture) {
  if (picture.frame === null) return picture.name;
  return `${picture.name}, frame ${thousands(picture.frame)}, ${picture.time.toFixed(2)} s`;
}

function startPoses() {
  const { clips, measures, pictures, iterations } = page.poses;
  const clip = byId("clip");
  const about = clips.map(({ name, moving, every, of }, c) => {
    const shown = pictures.filter((picture) => picture.clip === c).length;
    const total = of === null ? "" : ` of ${thousands(of)}`;
    const what = moving ? "frames" : "shown";
    return `${name}: ${thousands(shown)}${total} ${what}` + (every > 1 ? `, one in ${every}` : "");
  });
  if (iterations > 1) about.push(`${iterations} passes of inference`);
  byId("poses-about").textContent = about.join("; ");
  clip.append(...clips.map(({ name }, c) => element("option", { value: c }, name)));
  if (clips.length < 2) byId("clip-control").remove();

  const state = { here: [], index: 0, measure: measures[0] };
  const level = (picture) => average(picture.measures[state.measure.key]);
  currentPicture = () => state.here[state.index];

  const draw = () => drawPicture(currentPicture(), state.measure);
  const frame = slider("frame", 0, 0, (index) => {
    state.index = index;
    draw();
    if (state.measure) markTrack(index, state);
    return `${index + 1} of ${state.here.length}`;
  });
  const stop = player("frame-play", frame, () => (clips[Number(clip.value)]?.moving ? 80 : 500));
  const show = (c, picture) => {
    stop();
    clip.value = c;
    state.here = pictures.filter((each) => each.clip === c);
    frame.input.max = state.here.length - 1;
    if (state.measure) drawTrack(state.here.map(level), state.measure);
    frame.set(picture ? state.here.indexOf(picture) : 0);
  };
  clip.addEventListener("change", () => show(Number(clip.value)));
  byId("frame-back").addEventListener("click", () => frame.set(Math.max(0, state.index - 1)));
  byId("frame-on").addEventListener("click", () => frame.set(Math.min(state.here.length - 1, state.index + 1)));
  byId("recalled").addEventListener("change", draw);
  redraws.push(draw);
  if (measures.length) startMeasures(state, level, frame, show);
  else byId("measured").remove();
  show(pictures.length ? pictures[0].clip : 0);
}

/** The choice of a measure, its track, and the pictures where it is worst. */
function startMeasures(state, level, frame, show) {
  const { measures, pictures } = page.poses;
  const [select, track] = [byId("measure"), byId("track")];
  select.append(...measures.map(({ key, label }) => element("option", { value: key }, label)));
  if (measures.length < 2) byId("measure-control").remove();
  if (!pictures.some((picture) => picture.recalled)) byId("recalled-control").remove();
  const list = () => {
    const worst = (a, b) => (state.measure.better === "low" ? level(b) - level(a) : level(a) - level(b));
    const order = pictures.filter((picture) => level(picture) !== null).sort(worst);
    byId("least").replaceChildren(
      ...order.slice(0, LEAST).map((picture) => {
        const image = element("img", { src: picture.image, alt: "" });
        const value = element("b", {}, digits(level(picture)));
        const button = element("button", { type: "button" }, image, called(picture), value);
        button.picture = picture;
        button.addEventListener("click", () => show(picture.clip, picture));
        return element("li", {}, button);
      }),
    );
  };
  select.addEventListener("change", () => {
    state.measure = measures.find(({ key }) => key === select.value);
    list();
    drawTrack(state.here.map(level), state.measure);
    frame.refresh();
  });
  track.addEventListener("click", (event) => {
    const box = track.getBoundingClientRect();
    const index = Math.floor(((event.clientX - box.left) / box.width) * state.here.length);
    frame.set(Math.min(Math.max(index, 0), state.here.length - 1));
  });
  list();
}

function drawPicture(picture, measure) {
  const svg = byId("picture");
  const unit = setPicture(svg, picture.image, picture.size, `${called(picture)}, with its pose`);
  if (picture.recalled && byId("recalled")?.checked) {
    picture.points.forEach(([x1, y1], i) => {
      const [x2, y2] = picture.recalled[i];
      shape(svg, "line", { x1, y1, x2, y2, class: `shift ${fadedUnless(i)}`, "stroke-width": 0.6 * unit });
    });
    drawPose(svg, picture.recalled, page.opacities, unit, "dashed");
  }
  drawPose(svg, picture.points, page.opacities, unit);
  const values = measure ? picture.measures[measure.key] : null;
  const suffix = values ? `; ${measure.label.toLowerCase()} ${digits(average(values))} ${measure.unit}` : "";
  byId("picture-caption").textContent = called(picture) + suffix;
  const headings = ["keypoint", "x", "y", ...(values ? [measure.label.toLowerCase()] : [])];
  const measured = (i) => (values ? [digits(values[i])] : []);
  const rows = picture.points.map(([x, y], i) => [NAMES[i], digits(x, 1), digits(y, 1), ...measured(i)]);
  fillTable(byId("points"), headings, rows);
}

function drawTrack(levels, measure) {
  const svg = byId("track");
  const top = Math.max(...levels.map((value) => value ?? 0)) || 1;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${levels.length} 100`);
  const bars = levels.map((value, i) => (value === null ? "" : `M${i},100v${(-94 * value) / top}h1V100z`));
  shape(svg, "path", { d: bars.join("") });
  shape(svg, "line", { class: "now", y1: 0, y2: 100 });
  svg.setAttribute("aria-label", `${measure.label} of each picture in order; the slider above goes through them`);
  const range = `up to ${digits(top)} ${measure.unit}`;
  byId("track-caption").textContent = `${measure.label}, ${range}. Click to jump. ${measure.about}`;
}

function markTrack(index, { here, index: shown }) {
  const line = byId("track").querySelector(".now");
  line?.setAttribute("x1", index + 0.5);
  line?.setAttribute("x2", index + 0.5);
  for (const button of byId("least").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.picture === here[shown]));
  }
}
