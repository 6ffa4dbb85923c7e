// Iterative inference on hidden pictures, and the errors measured round by round, under one slider.

const hiddenErrors = () => page.evaluations.find(({ hidden }) => hidden)?.hidden ?? null;

function startRounds() {
  const [shown, errors] = [page.rounds, hiddenErrors()];
  const all = errors ? errors.measures.flatMap(({ rows }) => rows.map(({ values }) => values.length)) : [1];
  const measured = Math.max(...all) - 1;
  const last = Math.max(shown?.rounds ?? 0, measured);
  const draw = shown ? startHidden(shown) : () => "";
  const marks = errors ? errors.measures.map((measure) => startErrors(measure, measured)) : [];
  if (errors) byId("hidden-errors").append(element("p", { className: "about" }, `As measured: ${errors.protocol}.`));
  const round = slider("round", last, 0, (number) => {
    for (const mark of marks) mark(number);
    return `${number} of ${last}${draw(number)}`;
  });
  byId("hidden")?.addEventListener("change", round.refresh);
  redraws.push(round.refresh);
  round.refresh();
}

/** The pictures; gives the function that draws a round and tells about it. */
function startHidden({ pictures, size }) {
  const select = byId("hidden");
  select.append(...pictures.map(({ name }, i) => element("option", { value: i }, `${i + 1}: ${name}`)));
  return (number) => {
    const picture = pictures[Number(select.value)];
    const pass = picture.passes[Math.min(number, picture.passes.length - 1)];
    const [seen, whole] = [byId("seen"), byId("whole")];
    let unit = setPicture(seen, pass.image, [size, size], `What round ${number} saw, with the pose found`);
    drawPose(seen, pass.points, page.opacities, unit);
    unit = setPicture(whole, picture.image, [size, size], "The whole picture, with the pose found on it");
    drawPose(whole, picture.points, page.opacities, unit);
    const plain = `The picture, ${page.rounds.about}, with the plain estimate`;
    byId("seen-caption").textContent = number === 0 ? plain : `What round ${number} saw, with the pose found`;
    return `; ${digits(pass.moved)} of the image size from the pose on the whole picture`;
  };
}

/** A table; gives the function that marks the column of a round. */
function startErrors({ measure, rows }, measured) {
  const table = element("table");
  const rounds = Array.from({ length: measured + 1 }, (_, r) => `round ${r}`);
  const several = new Set(rows.map((row) => row.model)).size > 1;
  const recovers = rows.some((row) => row.recovered !== null);
  fillTable(
    table,
    ["hidden", ...(several ? ["model"] : []), ...rounds, ...(recovers ? ["recovered"] : [])],
    rows.map((row) => {
      const share = row.recovered === null ? "–" : `${Math.round(100 * row.recovered)}%`;
      const values = rounds.map((_, r) => digits(row.values[r] ?? null));
      return [row.mask, ...(several ? [row.model] : []), ...values, ...(recovers ? [share] : [])];
    }),
  );
  byId("hidden-errors").append(element("h3", {}, measure), boxed(table, `${measure}, under occlusion`));
  return (number) => {
    for (const row of table.rows) {
      [...row.cells].forEach((cell, c) => cell.classList.toggle("now", c === number + 1 + Number(several)));
    }
  };
}
