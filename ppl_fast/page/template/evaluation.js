// The tables of what was measured on the run.

function startEvaluation() {
  for (const { file, about, scores } of page.evaluations) {
    const several = new Set(scores.map((score) => score.model)).size > 1;
    const rows = scores.map((score) => [
      score.measure,
      ...(several ? [score.model] : []),
      digits(score.value),
      digits(score.baseline),
      score.baselineName ?? "",
    ]);
    const headings = ["measure", ...(several ? ["model"] : []), "value", "baseline", "which is"];
    const protocols = [...new Set(scores.map((score) => score.protocol))];
    const place = byId("evaluations");
    place.append(
      element("h3", {}, file),
      element("p", { className: "about" }, about.join(" ")),
      boxed(fillTable(element("table"), headings, rows), `Scores of ${file}`),
      element("ul", { className: "about" }, ...protocols.map((text) => element("li", {}, text))),
    );
    const byJoint = scores.filter((score) => Object.keys(score.joints).length);
    if (!byJoint.length) continue;
    const joints = [...new Set(byJoint.flatMap((score) => Object.keys(score.joints)))];
    const columns = byJoint.map((score) => (several ? `${score.measure}, ${score.model}` : score.measure));
    const table = fillTable(
      element("table"),
      ["joint", ...columns],
      joints.map((joint) => [joint, ...byJoint.map((score) => digits(score.joints[joint] ?? null))]),
    );
    place.append(element("details", {}, element("summary", {}, "Joint by joint"), boxed(table, `Joints of ${file}`)));
  }
}
