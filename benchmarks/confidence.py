"""What confidence is worth: errors of the surer half of keypoints and of the rest, on images held out.

    python benchmarks/confidence.py RUN LABELLED [HELD_OUT] [--out FILE]

Calibrates on LABELLED, judges HELD_OUT, both folders or projects with labels; without HELD_OUT, a third of LABELLED,
drawn by chance, is held out. Whole; half of the blocks hidden, and told so; hidden
and not told. Then frames without the subject, the pixels' medians over HELD_OUT: how often such a frame has a lower
mean likelihood than one with the subject, both with noise of 5 levels (0.5 is chance, 1 always).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppl_fast._files import write_text
from ppl_fast.data import ImageFolder, load_labels
from ppl_fast.evaluation._calibration import calibrate, judge, measure, surer_half
from ppl_fast.evaluation._labelled import labelled_split
from ppl_fast.inference.confidence import gather, uncalibrated
from ppl_fast.training import load_model

KINDS = {"whole": "whole", "told": "half hidden, told", "hidden": "half hidden, not told"}
FRAMES, NOISE = 100, 5 / 127.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("labelled")
    parser.add_argument("held_out", nargs="?")
    parser.add_argument("--out")
    options = parser.parse_args()
    model = load_model(options.run)
    size = model.config["image_size"]
    images, labels = ImageFolder(options.labelled, size), load_labels(options.labelled)
    if options.held_out:
        held_out, others = ImageFolder(options.held_out, size), load_labels(options.held_out)
    else:
        rows = np.random.default_rng(0).permutation(len(labels))
        held_out, others, labels = images, labels.select(rows[: len(rows) // 3]), labels.select(rows[len(rows) // 3 :])
    calibration = calibrate(model, images, labels, progress=False)
    split, _ = labelled_split(held_out, others, "confidence")
    judged = judge(model, split)
    found: dict[str, Any] = measure(calibration, judged)
    for kind, (evidence, errors) in judged.items():
        sure, rest = surer_half(uncalibrated(evidence), errors)
        found[kind] |= {"uncalibrated": {"sure": sure, "rest": rest}}
    pictures = torch.stack([split.images[i] for i in range(len(split))])
    torch.manual_seed(0)
    noise = NOISE * torch.randn(FRAMES, *pictures.shape[1:])
    whole, without = (
        gather(model, (frames + noise[: len(frames)]).clamp(-1, 1))[1]
        for frames in (pictures[:FRAMES], pictures.median(dim=0).values.expand(FRAMES, -1, -1, -1))
    )
    found["without"] = {
        "calibrated": above(calibration.judge(whole)[0], calibration.judge(without)[0]),
        "uncalibrated": above(uncalibrated(whole), uncalibrated(without)),
        "expected": float(calibration.judge(without)[1].mean()),
        "likelihood": float(calibration.judge(without)[0].mean()),
    }
    found |= {"frames": [calibration.frames, len(split)], "model": type(model).__name__}
    print(table(found))
    if options.out:
        write_text(Path(options.out), json.dumps(found, indent=2) + "\n")


def above(one: np.ndarray, other: np.ndarray) -> float:
    """How often the mean likelihood of a frame of `one`, (n, N), is above that of one of `other`."""
    a, b = one.mean(axis=1)[:, None], other.mean(axis=1)
    return float(((a > b) + 0.5 * (a == b)).mean())


def table(found: dict[str, Any]) -> str:
    rows = [
        "| frames held out | error | expected | surer half | rest | ratio | uncalibrated | within .05 | likelihood |",
        "| --- | " + "---: | " * 7 + "---: |",
    ]
    for kind, what in KINDS.items():
        each = found[kind]
        plain = each["uncalibrated"]["sure"] / each["uncalibrated"]["rest"]
        rows.append(
            f"| {what} | {each['error']:.4f} | {each['expected']:.4f} | {each['sure']:.4f} | {each['rest']:.4f} | "
            f"{each['sure'] / each['rest']:.2f} | {plain:.2f} | {each['within']:.2f} | {each['likelihood']:.2f} |"
        )
    without = found["without"]
    rows.append(
        f"\nwithout the subject: less likely than with it in {without['calibrated']:.2f} of pairs (uncalibrated "
        f"{without['uncalibrated']:.2f}); likelihood {without['likelihood']:.2f}, expected {without['expected']:.4f}"
    )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
