// The beginning: the heading, and of the parts those that there is something for.

const PARTS = {
  poses: [page.poses, startPoses],
  occlusion: [page.rounds || hiddenErrors(), startRounds],
  prior: [page.prior, startPrior],
  training: [page.training, startTraining],
  memory: [page.memory, startMemory],
  links: [page.links.length, startLinks],
  evaluation: [page.evaluations.length, startEvaluation],
  about: [true, startOptions],
};

function start() {
  const named = JOINTS ? `${JOINTS.names.length} named joints from ` : "";
  const keypoints = `${named}${page.colours.length} keypoints, ${page.imageSize} x ${page.imageSize} pixels`;
  const trained = page.step === null ? "" : `, ${thousands(page.step)} steps`;
  byId("name").textContent = page.name;
  byId("facts").textContent = `${page.architecture}: ${keypoints}${trained}`;
  if (!page.rounds) byId("hidden-pictures").remove();
  startDrawing();
  for (const [id, [content, begin]] of Object.entries(PARTS)) {
    if (!content) {
      byId(id).remove();
      continue;
    }
    const link = element("a", { href: `#${id}` }, byId(`${id}-title`).textContent);
    byId("parts").append(element("li", {}, link));
    begin();
  }
}

start();
