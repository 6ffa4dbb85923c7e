// The memory: its decoder on one vector of each bank, and the controls that choose them.

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const plus = (a, b) => a.map((value, i) => value + b[i]);
const linear = ({ weight, bias }, x) => weight.map((row, i) => dot(row, x) + bias[i]);
const transposed = (rows) => rows[0].map((_, c) => rows.map((row) => row[c]));

function normed({ weight, bias, eps }, x) {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  const scale = 1 / Math.sqrt(variance + eps);
  return x.map((value, i) => (value - mean) * scale * weight[i] + bias[i]);
}

/** The error function to 1.5e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26). */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - poly * Math.exp(-x * x));
}

const gelu = (x) => 0.5 * x * (1 + erf(x / Math.SQRT2));
const mlp = ([first, second], x) => linear(second, linear(first, x).map(gelu));

/** The pose (N, 2) of a code (m, c), as the model's own decoder gives it. */
function decoded(code) {
  const memory = page.memory;
  const features = transposed(code);
  let x = memory.banks.map((row, n) => memory.offset[n].map((value, c) => value + dot(row, features[c])));
  for (const layer of memory.layers) {
    const columns = transposed(x.map((token) => normed(layer.tokenNorm, token)));
    const across = columns.map((column) => mlp(layer.tokenMlp, column));
    x = x.map((token, n) => plus(token, across.map((column) => column[n])));
    x = x.map((token) => plus(token, mlp(layer.channelMlp, normed(layer.channelNorm, token))));
  }
  return x.map((token) => linear(memory.out, normed(memory.norm, token)));
}

function startMemory() {
  const { codes, shares } = page.memory;
  const means = codes.map((bank) => transposed(bank).map((column) => column.reduce((s, v) => s + v, 0) / bank.length));
  const orders = shares.map((bank) => bank.map((_, k) => k).sort((a, b) => bank[b] - bank[a]));
  const chosen = codes.map(() => -1); // a vector a bank, or -1 for the mean
  const mean = decoded(means);
  const [svg, gain] = [byId("memory-pose"), byId("gain")];

  let many = false; // vectors change at once, and the pose is drawn when all have

  const draw = () => {
    if (many) return;
    const unit = setPlain(svg);
    const pose = decoded(chosen.map((k, bank) => (k < 0 ? means[bank] : codes[bank][k])));
    const times = Number(gain.value);
    const shown = pose.map((point, n) => point.map((value, axis) => mean[n][axis] + times * (value - mean[n][axis])));
    drawPose(svg, mean, page.opacities, unit, "ghost");
    drawPose(svg, shown, page.opacities, unit);
    const away = pose.reduce((sum, point, n) => sum + Math.hypot(point[0] - mean[n][0], point[1] - mean[n][1]), 0);
    const distance = digits(away / pose.length / 2);
    const changed = chosen.filter((k) => k >= 0).length;
    byId("memory-caption").textContent =
      `${changed} of ${codes.length} banks chosen; on average ${distance} of the image size from the mean pose` +
      (times > 1 ? `, differences drawn ${times} times as large.` : ".");
  };

  const rows = codes.map((bank, b) => {
    const id = `bank-${b}`;
    const input = element("input", { type: "range", id, min: 0, max: bank.length, value: 0 });
    const value = element("output", { id: `${id}-value`, htmlFor: id });
    byId("banks").append(
      element("div", { className: "control" }, element("label", { htmlFor: id }, `Bank ${b + 1}`), input, value),
    );
    return slider(id, bank.length, 0, (rank) => {
      chosen[b] = rank ? orders[b][rank - 1] : -1;
      draw();
      return rank ? `vector ${chosen[b] + 1}, ${digits(100 * shares[b][chosen[b]], 1)}%` : "the mean";
    });
  });
  const choose = (vector) => {
    many = true;
    rows.forEach((row, b) => row.set(orders[b].indexOf(vector(b)) + 1)); // -1, the mean, is in no order
    many = false;
    draw();
  };
  byId("memory-means").addEventListener("click", () => choose(() => -1));
  byId("memory-random").addEventListener("click", () => choose((b) => Math.floor(Math.random() * codes[b].length)));
  const picture = byId("memory-picture");
  if (page.poses) picture.addEventListener("click", () => choose((b) => currentPicture()?.codes[b] ?? -1));
  else picture.remove();
  gain.addEventListener("change", draw);
  redraws.push(draw);
  choose(() => -1);
}
