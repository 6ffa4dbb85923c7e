"""The demo: draw figures, learn a pose prior from the images alone, measure it, and show what was learned.

It trains without pretrained features, in minutes on two CPU cores. For that it departs from the published model, by
options that `ExtendedPPLConfig` documents; docs/demo.md says why, and what the result shows and does not show.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ppl_fast._files import write_text
from ppl_fast.data import ImageFolder, load_labels, make_figures
from ppl_fast.evaluation import evaluate_model, occlude, predict, side_by_side
from ppl_fast.evaluation._matching import check_scipy
from ppl_fast.models import PPL, AutoLinkConfig, KeypointModel
from ppl_fast.page import write_page
from ppl_fast.training import TrainConfig, train
from ppl_fast.visualization import save_occlusion, save_poses, save_prototypes, save_rounds

MODEL: dict[str, Any] = {
    "num_keypoints": 16,
    "image_size": 64,
    "thickness": 5e-3,
    "link_factor": 100.0,
    "link_start": -2.5,
    "memory_width": 64,
    "memory_hidden": 64,
    "memory_layers": 2,
    "memory_banks": 8,
    "memory_prototypes": 32,
    "memory_decay": 0.98,
    "memory_start": "balanced",
    "reseed_after": 50,
    "regressor_base": 16,
    "head": "residual",
    "occlude_input": 0.4,
    "occlude_fill": True,
    "translator": "light",
    "translator_base": 16,
    "translator_levels": 3,
    "mask_blocks": 8,
    "mask_ratio": 0.9,
    "reconstruction_loss": "mse",
    "reconstruction_weight": 4.0,
    "separation_weight": 0.01,
    "withhold": 0.5,
    "foreground_weight": 3.0,
    "coverage_weight": 8.0,
    "stray_weight": 1.6,
    "prior_weight": 100.0,
}
TRAIN: dict[str, Any] = {
    "batch_size": 8,
    "lr": 1e-3,
    "betas": (0.9, 0.99),
    "schedule": "cosine",
    "flip": False,
    "cache": True,
    "workers": 0,
    "channels_last": True,
    "device": "cpu",
    "tensorboard": False,
    "checkpoint_every": 1000,
    "picture_every": 1000,
}
# AutoLink, the baseline: the same, as far as the published model has the same, and its keypoints kept apart as well.
BASELINE = {name: value for name, value in MODEL.items() if name in AutoLinkConfig.__dataclass_fields__}
BASELINE |= {"detector_size": MODEL["image_size"], "detector_base": MODEL["regressor_base"]}
BASELINE["separation_weight"] = MODEL["separation_weight"]
STEPS = 4000
BASELINE_STEPS = 1000  # by then it is about as accurate on whole figures as PPL in the end (docs/demo.md)
ROUNDS = 4  # of iterative inference after the plain estimate
SHOWN = 15
SHOWN_ROUNDS = 4
SHOWN_HIDDEN = (("blocks", 0.5), ("centre", 0.14))


def run_demo(
    out: str = "runs/demo",
    seed: int = 0,
    steps: int = STEPS,
    images: int = 3500,
    test_images: int = 500,
    baseline_steps: int = BASELINE_STEPS,
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

    Returns:
        The content of metrics.json: what `side_by_side` gives for PPL and AutoLink, each number with its protocol,
        under "demo" how the run was made, and under "memory" how much of the memory is in use.

    Raises:
        ValueError, OSError: unusable arguments, or a run in `out` that was made with others.
    """
    run = Path(out)
    least_of = {"steps": (steps, 1), "baseline_steps": (baseline_steps, 1), "images": (images, 2)}
    for name, (value, least) in (least_of | {"test_images": (test_images, SHOWN)}).items():
        if value < least:
            raise ValueError(f"run_demo: {name} must be at least {least}, got {value}")
    check_scipy()
    started, cpu = time.perf_counter(), time.process_time()
    figures = run.with_name(f"{run.name}-figures")
    folders = {
        split: _figures(figures / f"seed{seed}-{split}-{count}", count, seed, split)
        for split, count in (("train", images), ("test", test_images))
    }
    drawn = time.perf_counter()
    model = cast(PPL, _trained("extended-ppl", MODEL, steps, seed, folders["train"], run))
    trained = time.perf_counter()
    beside = run.with_name(f"{run.name}-autolink")
    baseline = _trained("extended-autolink", BASELINE, baseline_steps, seed, folders["train"], beside)
    compared = time.perf_counter()
    metrics, test = _measure(model, baseline, folders)
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
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "threads": torch.get_num_threads(),
    }
    write_text(run / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_page(run / "page.html", run, folders["test"], model=model)
    return metrics


def _figures(folder: Path, count: int, seed: int, split: str) -> Path:
    """The folder with these figures, drawn unless an earlier demo did: a set appears whole or not at all."""
    if not folder.exists():
        make_figures(folder, count, size=MODEL["image_size"], seed=seed, split=split)
    return folder


def _trained(
    architecture: str, model: dict[str, Any], steps: int, seed: int, figures: Path, run: Path
) -> KeypointModel:
    """The model of a run, which goes on where it stopped."""
    begun = (run / "config.yaml").is_file()
    config = TrainConfig(steps=steps, seed=seed, **TRAIN)
    return train(model, config, figures, run, resume=begun, architecture=architecture)


def _measure(model: PPL, baseline: KeypointModel, folders: dict[str, Path]) -> tuple[dict[str, Any], ImageFolder]:
    """Metrics on the held-out figures, and those figures. Only here are labels read."""
    pairs = {name: (ImageFolder(folder, MODEL["image_size"]), load_labels(folder)) for name, folder in folders.items()}
    metrics = side_by_side(
        {
            name: evaluate_model(each, *pairs["train"], *pairs["test"], rounds=ROUNDS)
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
