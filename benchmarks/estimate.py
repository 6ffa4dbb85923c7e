"""Estimation by the published formulas, by a model, and by its copy from `optimize`: ms of a thread's time, in turns.

`python benchmarks/estimate.py [--out FILE]`; processor time, since it leaves out what other processes take meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from formulas import PublishedPPL
from run import keep, parser_of
from torch import Tensor

from ppl_fast import PPL, ExtendedPPL, KeypointModel, optimize
from ppl_fast.options.demo import MODEL

GATE = 1e-5  # of the largest coordinate, float32; bfloat16 is not gated, for it rounds by design
PUBLISHED, ALIKE = "published formulas", 1e-3  # the same of these, after some thirty layers of sums in another order
MODELS: dict[str, tuple[Callable[[], KeypointModel], int]] = {
    "published, 128 x 128": (PPL, 4),
    "demo, 64 x 64": (lambda: ExtendedPPL(**MODEL), 8),
}


class Published(PublishedPPL):
    """A model by the published formulas, as far as keypoints need them; the published code has no further passes."""

    def __init__(self, model: PPL):
        super().__init__(model.settings)
        del self.vgg_loss
        self.load_state_dict(model.to_published())
        self.eval()

    @torch.no_grad()
    def estimate(self, images: Tensor, passes: int = 1) -> Tensor:
        """Keypoints (B, N, 2), (x, y)."""
        return self.find(images)[2].flip(-1)


def rows_of(name: str, rounds: int) -> list[dict]:
    """One row for each number of passes and each way."""
    make, batch = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    images = torch.rand(batch, 3, model.config["image_size"], model.config["image_size"]) * 2 - 1
    ways = {"model": model, "optimized": optimize(model), "optimized, bfloat16": optimize(model, torch.bfloat16)}
    gates = {"optimized": GATE}
    if type(model) is PPL:
        ways, gates = {PUBLISHED: Published(model)} | ways, gates | {PUBLISHED: ALIKE}
    rows = []
    for passes in (1, 3):
        exact = model.estimate(images, passes)
        if passes > 1:
            ways.pop(PUBLISHED, None), gates.pop(PUBLISHED, None)
        for way, gate in gates.items():
            off = (ways[way].estimate(images, passes) - exact).abs().max() / exact.abs().max()
            if not off <= gate:
                raise AssertionError(f"{name}, {way}, {passes} passes: off by {off:.1e} of the largest coordinate")
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds + 1):  # the first is not counted
            for way, chosen in ways.items():
                begun = time.process_time()
                chosen.estimate(images, passes)
                taken[way].append((time.process_time() - begun) * 1e3)
        base = median(taken["model"][1:])
        for way, times in taken.items():
            ms = median(times[1:])
            row = {"model": name, "batch": batch, "passes": passes, "way": way, "cpu_ms": round(ms, 2)}
            rows.append(row | {"times_model": round(base / ms, 2)})
            print(f"{name:<22}{passes} pass{'es' * (passes > 1):<4}{way:<22}{ms:9.1f} ms{base / ms:7.2f} times")
    return rows


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="calls of each way")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in MODELS for row in rows_of(name, arguments.rounds)]
    keep(rows, arguments.out)


if __name__ == "__main__":
    main()
