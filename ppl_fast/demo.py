"""The demo: draw figures, learn a pose prior from the images alone, measure it, and show what was learned.

It trains the preset `small`, without pretrained features, in minutes on two CPU cores; docs/demo.md says why its
options are what they are, and what the result shows and does not show.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ppl_fast._devices import pick
from ppl_fast._files import write_text
from ppl_fast._options import plain
from ppl_fast._side_by_side import meanwhile
from ppl_fast.data import ImageFolder, load_labels, make_figures
from ppl_fast.data.subjects import SubjectMasks
from ppl_fast.evaluation import evaluate_model, occlude, predict, side_by_side
from ppl_fast.evaluation._matching import check_scipy
from ppl_fast.inference.posing import device_of
from ppl_fast.models import PPL, KeypointModel
from ppl_fast.options.demo import BASELINE, BASELINE_STEPS, FIGURES, MODEL, STEPS, TEST_FIGURES, TRAIN
from ppl_fast.page import write_page
from ppl_fast.training import TrainConfig, load_model, train
from ppl_fast.visualization import save_occlusion, save_poses, save_prototypes, save_rounds

ROUNDS = 4  # of iterative inference after the plain estimate
SHOWN = 15
SHOWN_ROUNDS = 4
SHOWN_HIDDEN = (("blocks", 0.5), ("centre", 0.14))


def run_demo(
    out: str = "runs/demo",
    seed: int = 0,
    steps: int = STEPS,
    images: int = FIGURES,
    test_images: int = TEST_FIGURES,
    baseline_steps: int = BASELINE_STEPS,
    device: str = "auto",
    processes: int = 1,
) -> dict[str, Any]:
    """Draw figures, train on the images without their labels, measure on held-out figures, draw what was learned.

    An interrupted demo goes on where it stopped when it is run again. The figures and the run of the baseline,
    AutoLink, stay in folders beside the run.

    Args:
        out: run directory; beside what training leaves there, it receives metrics.json, poses.png, prior.png,
            memory.png, occlusion.png, occlusion_curve.png, training.png and page.html.
        seed: of figures and training.
        steps: optimizer steps of PPL.
        images: figures to train on.
        test_images: held-out figures to measure on.
        baseline_steps: optimizer steps of AutoLink.
        device: that trains and measures: auto, the accelerator that torch finds; cpu; or another, as cuda:1.
        processes: 2 trains PPL and AutoLink side by side where a CPU does, with half of torch's threads each, of which
            networks so small make more. The second is spawned: guard the program by `if __name__ == "__main__":`.

    Returns:
        The content of metrics.json: what `side_by_side` gives for PPL and AutoLink, each number with its protocol,
        under "demo" how the run was made, and under "memory" how much of the memory is in use.

    Raises:
        ValueError, OSError: unusable arguments, or a run in `out` that was made with others.
        RuntimeError: the process that trained AutoLink was lost.
    """
    run = Path(out)
    seed, steps, images, test_images, baseline_steps = map(plain, (seed, steps, images, test_images, baseline_steps))
    least_of = {"steps": (steps, 1), "baseline_steps": (baseline_steps, 1), "images": (images, 2)}
    for name, (value, least) in (least_of | {"test_images": (test_images, SHOWN)}).items():
        if value < least:
            raise ValueError(f"run_demo: {name} must be at least {least}, got {value}")
    try:
        shared = pick(device).type == "cpu" and min(processes, torch.get_num_threads()) > 1
    except ValueError as error:
        raise ValueError(f"run_demo: {error}") from error
    check_scipy()
    started, cpu = time.perf_counter(), sum(os.times()[:4])
    figures = run.with_name(f"{run.name}-figures")
    folders = {
        split: _figures(figures / f"seed{seed}-{split}-{count}", count, seed, split)
        for split, count in (("train", images), ("test", test_images))
    }
    drawn = time.perf_counter()
    beside = run.with_name(f"{run.name}-autolink")
    autolink = "extended-autolink", BASELINE, baseline_steps, seed, folders["train"], beside, device
    with meanwhile(_trained_unseen, *autolink) if shared else nullcontext():
        model = cast(PPL, _trained("extended-ppl", MODEL, steps, seed, folders["train"], run, device))
    trained = time.perf_counter()  # both, where side by side
    baseline = load_model(beside) if shared else _trained(*autolink)
    compared = time.perf_counter()
    metrics, test = _measure(model, baseline, folders)
    used, model = device_of(model), model.cpu()
    _draw(run, model, metrics, test)
    metrics["demo"] = {
        "seed": seed,
        "steps": steps,
        "baseline_steps": baseline_steps,
        "figures": {"kind": "person", "difficulty": "lab", "size": MODEL["image_size"]},
        "seconds": {
            "figures": round(drawn - started, 1),
            "training": round(trained - drawn, 1),
            "baseline": round(compared - trained, 1),
            "evaluation": round(time.perf_counter() - compared, 1),
        },
        "cpu_seconds": round(sum(os.times()[:4]) - cpu, 1),  # of processes that it began, too
        "threads": torch.get_num_threads(),
        "processes": 1 + shared,
        "device": str(used),
    }
    write_text(run / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_page(run / "page.html", run, folders["test"], model=model)
    return metrics


def _figures(folder: Path, count: int, seed: int, split: str) -> Path:
    """The folder with these figures, drawn unless an earlier demo did: a set appears whole or not at all.

    Those to measure on have masks beside them: how many keypoints lie on the figure is measured by them.
    """
    if not folder.exists():
        masks = _masks(folder) if split == "test" else None
        make_figures(folder, count, size=MODEL["image_size"], seed=seed, split=split, masks=masks)
    return folder


def _masks(folder: Path) -> Path:
    """The folder of the figures' masks."""
    return folder.with_name(f"{folder.name}-masks")


def _trained(
    architecture: str, model: dict[str, Any], steps: int, seed: int, figures: Path, run: Path, device: str
) -> KeypointModel:
    """The model of a run, which goes on where it stopped."""
    begun = (run / "config.yaml").is_file()
    config = TrainConfig(steps=steps, seed=seed, **(TRAIN | {"device": device}))
    return train(model, config, figures, run, resume=begun, architecture=architecture)


def _trained_unseen(*of_run: Any) -> None:
    """The same in a process beside another one, whose progress is what is shown."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        _trained(*of_run)


def _measure(model: PPL, baseline: KeypointModel, folders: dict[str, Path]) -> tuple[dict[str, Any], ImageFolder]:
    """Metrics on the held-out figures, and those figures. Only here are labels read."""
    pairs = {name: (ImageFolder(folder, MODEL["image_size"]), load_labels(folder)) for name, folder in folders.items()}
    masks = _masks(folders["test"])
    subjects = SubjectMasks(masks, pairs["test"][0]) if masks.exists() else None
    metrics = side_by_side(
        {
            name: evaluate_model(each, *pairs["train"], *pairs["test"], rounds=ROUNDS, subjects=subjects)
            for name, each in {"PPL": model, "AutoLink": baseline}.items()
        }
    )
    perplexity, dead = model.usage()
    mean_pose = predict(model, pairs["test"][0], progress=False).mean(axis=0)
    prior = model.prior().keypoints.cpu().double().numpy()
    metrics["prior"] = {
        "distance": float(np.linalg.norm(prior - mean_pose, axis=1).mean() / 2),
        "protocol": "mean distance of the prior to the mean estimated pose, as a fraction of the image size",
    }
    metrics["memory"] = {
        "perplexity": float(perplexity.mean()),
        "dead_vectors": int(dead.sum()),
        "vectors": model.config["memory_banks"] * model.config["memory_prototypes"],
        "protocol": "perplexity of the vectors' shares, mean over the banks; at most the number of vectors in a bank",
    }
    return metrics, pairs["test"][0]


def _draw(run: Path, model: PPL, metrics: dict[str, Any], test: ImageFolder) -> None:
    """Held-out figures, errors and the memory; training has drawn its curves and the prior."""
    images = torch.stack([test[i] for i in range(SHOWN)])
    links, weights = model.links, model.link_weights().detach()
    save_poses(run / "poses.png", images, model.estimate(images), links, weights, legend=True)
    each = 2  # figures a mask
    shown = [images[each * i : each * (i + 1)] for i in range(len(SHOWN_HIDDEN))]
    hidden = [
        occlude(part, *mask, first=each * i) for i, (part, mask) in enumerate(zip(shown, SHOWN_HIDDEN, strict=True))
    ]
    seen, visible = (torch.cat(parts) for parts in zip(*hidden, strict=True))
    rounds = model.estimate_rounds(seen, SHOWN_ROUNDS, visible=visible)
    save_rounds(run / "occlusion.png", torch.cat(shown), rounds, links, weights, legend=True)
    curves = {name: result["occlusion"] for name, result in ({"PPL": metrics} | metrics["beside"]).items()}
    save_occlusion(run / "occlusion_curve.png", curves, metrics["regression"]["baseline"])
    save_prototypes(run / "memory.png", model.prototype_poses(), links, weights, legend=True)
