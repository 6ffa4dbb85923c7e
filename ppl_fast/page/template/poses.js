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
  const empty = (c) => !pictures.some((picture) => picture.clip === c);
  clip.append(...clips.map(({ name }, c) => element("option", { value: c, disabled: empty(c) }, name)));
  if (clips.length < 2) byId("clip-control").remove();

  const state = { here: [], index: 0, measure: measures[0], parts: JOINTS || KEYPOINTS };
  const level = (picture) => {
    const values = valuesOf(picture, state);
    return values === null ? null : state.parts.picked >= 0 ? values[state.parts.picked] : average(values);
  };
  currentPicture = () => state.here[state.index];

  const draw = () => drawPicture(currentPicture(), state);
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
    if (state.measure) drawTrack(state.here.map(level), state);
    frame.set(picture ? state.here.indexOf(picture) : 0);
  };
  clip.addEventListener("change", () => show(Number(clip.value)));
  byId("frame-back").addEventListener("click", () => frame.set(Math.max(0, state.index - 1)));
  byId("frame-on").addEventListener("click", () => frame.set(Math.min(state.here.length - 1, state.index + 1)));
  byId("recalled").addEventListener("change", draw);
  redraws.push(draw);
  const measured = measures.length ? startMeasures(state, level, frame, show) : () => {};
  if (!measures.length) for (const id of ["measured", "track-figure"]) byId(id).remove();
  startJoints(state, () => {
    measured();
    draw();
  });
  show(pictures.length ? pictures[0].clip : 0);
}

/** What is measured of the parts that are shown of a picture; of joints, what is not known of them is the keypoints'. */
function valuesOf(picture, { measure, parts }) {
  const own = parts === JOINTS ? picture.joints?.measures[measure.key] : picture.measures[measure.key];
  return own ?? (parts.picked >= 0 ? null : picture.measures[measure.key]);
}

/** The choice between named joints and keypoints, and the list of the joints, of which one can be picked out. */
function startJoints(state, changed) {
  if (!JOINTS) {
    for (const id of ["parts-control", "joints-control"]) byId(id).remove();
    return;
  }
  const select = byId("shown-parts");
  const shown = () => {
    state.parts = select.value === "joints" ? JOINTS : KEYPOINTS;
    byId("joints-control").hidden = state.parts !== JOINTS;
    if (byId("recalled-control")) byId("recalled-control").hidden = state.parts === JOINTS;
    changed();
  };
  const buttons = JOINTS.names.map((name, i) => {
    const dot = element("i", { ariaHidden: "true" });
    dot.style.background = JOINTS.colours[i];
    const button = element("button", { type: "button", ariaPressed: "false" }, dot, `${i} ${name} `, element("b"));
    button.addEventListener("click", () => {
      JOINTS.picked = JOINTS.picked === i ? -1 : i;
      buttons.forEach((each, j) => each.setAttribute("aria-pressed", String(j === JOINTS.picked)));
      changed();
    });
    return button;
  });
  byId("joints").append(...buttons.map((button) => element("li", {}, button)));
  select.addEventListener("change", shown);
  shown();
}

/** The choice of a measure, its track, and the pictures where it is worst; what draws them anew. */
function startMeasures(state, level, frame, show) {
  const { measures, pictures } = page.poses;
  const [select, track] = [byId("measure"), byId("track")];
  select.append(...measures.map(({ key, label }) => element("option", { value: key }, label)));
  if (measures.length < 2) byId("measure-control").remove();
  if (!pictures.some((picture) => picture.recalled)) byId("recalled-control").remove();
  const list = () => {
    byId("least-title").textContent = state.measure.better === "low" ? "Least plausible first" : "Least certain first";
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
  const refresh = () => {
    list();
    drawTrack(state.here.map(level), state);
    if (state.here.length) frame.refresh();
  };
  select.addEventListener("change", () => {
    state.measure = measures.find(({ key }) => key === select.value);
    refresh();
  });
  track.addEventListener("click", (event) => {
    const box = track.getBoundingClientRect();
    const index = Math.floor(((event.clientX - box.left) / box.width) * state.here.length);
    frame.set(Math.min(Math.max(index, 0), state.here.length - 1));
  });
  list();
  return refresh;
}

function drawPicture(picture, { measure, parts }) {
  if (!picture) return; // there is none yet
  const svg = byId("picture");
  const unit = setPicture(svg, picture.image, picture.size, `${called(picture)}, with its pose`);
  const points = parts === JOINTS ? picture.joints.points : picture.points;
  if (parts === KEYPOINTS && picture.recalled && byId("recalled")?.checked) {
    points.forEach(([x1, y1], i) => {
      const [x2, y2] = picture.recalled[i];
      shape(svg, "line", { x1, y1, x2, y2, class: `shift ${fadedUnless(i)}`, "stroke-width": 0.6 * unit });
    });
    drawPose(svg, picture.recalled, page.opacities, unit, "dashed");
  }
  drawPose(svg, points, parts === JOINTS ? JOINTS.links.map(() => 1) : page.opacities, unit, "", parts);
  const all = measure ? valuesOf(picture, { measure, parts }) : null;
  const suffix = all ? `; ${measure.label.toLowerCase()} ${digits(average(all))} ${measure.unit}` : "";
  byId("picture-caption").textContent = called(picture) + suffix;
  const values = all?.length === points.length ? all : null; // one each, and not those of what they are made of
  const headings = [parts.what, "x", "y", ...(values ? [measure.label.toLowerCase()] : [])];
  const measured = (i) => (values ? [digits(values[i])] : []);
  const rows = points.map(([x, y], i) => [parts.names[i], digits(x, 1), digits(y, 1), ...measured(i)]);
  fillTable(byId("points"), headings, rows);
  byId("joints")?.querySelectorAll("b").forEach((place, i) => (place.textContent = values ? digits(values[i], 2) : ""));
}

function drawTrack(levels, { measure, parts }) {
  const svg = byId("track");
  const top = Math.max(0, ...levels.map((value) => value ?? 0)) || 1;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${levels.length} 100`);
  const bars = levels.map((value, i) => (value === null ? "" : `M${i},100v${(-94 * value) / top}h1V100z`));
  shape(svg, "path", { d: bars.join("") });
  shape(svg, "line", { class: "now", y1: 0, y2: 100 });
  svg.setAttribute("aria-label", `${measure.label} of each picture in order; the slider above goes through them`);
  const range = `up to ${digits(top)} ${measure.unit}`;
  const of = parts.picked >= 0 ? ` of ${parts.names[parts.picked]}` : "";
  byId("track-caption").textContent = `${measure.label}${of}, ${range}. Click to jump. ${measure.about}`;
}

function markTrack(index, { here, index: shown }) {
  const line = byId("track").querySelector(".now");
  line?.setAttribute("x1", index + 0.5);
  line?.setAttribute("x2", index + 0.5);
  for (const button of byId("least").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.picture === here[shown]));
  }
}
