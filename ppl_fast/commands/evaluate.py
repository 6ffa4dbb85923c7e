"""ppl-fast evaluate: a trained model, or two side by side, against labels, by every protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ppl_fast.commands.footage import add_crop, add_labels, framing_for, open_labelled
from ppl_fast.commands.options import (
    add_compute,
    add_run,
    at_least,
    check_outputs,
    command_parser,
    fetch,
    named_model,
    parse,
    place,
)

if TYPE_CHECKING:
    from ppl_fast.data.sets import LabelledSet
    from ppl_fast.models import KeypointModel
    from ppl_fast.naming import NamedJoints
    from ppl_fast.options.footage import Framing

DESCRIPTION = """Measure a run against the labels in DATA, mean pose beside. DATA is a project of DeepLabCut or
Lightning Pose, a folder of images or videos with labels beside them (keypoints.npz, CollectedData*.csv or .h5, .slp,
COCO keypoint JSON), or a published data set such as human36m:ROOT, with its own splits and protocol.
The regression from detected to labelled keypoints is fitted on --train-data; without it, a folder is divided.
--beside measures a second run, such as AutoLink, on the same images."""
SCORES = ("named", "regression", "ridge", "matching", "pck", "limb_share", "subject_share")
CURVE = "_occlusion_curve.png"  # after the name of the metrics file


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("evaluate", DESCRIPTION, "RUN DATA [--train-data DIR] [--beside RUN2] [options]")
    add_run(parser)
    parser.add_argument("data", metavar="DATA", type=str, help="labelled images to measure on")
    parser.add_argument("--train-data", type=str | None, default=None, metavar="DIR", help="labelled images to fit on")
    add_labels(parser)
    add_crop(parser)
    parser.add_argument("--beside", type=str | None, default=None, metavar="RUN2", help="second run to measure")
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="metrics file, with a chart beside it (default: RUN/evaluation.json)",
    )
    parser.add_argument("--iterations", type=int, default=1, help="estimation passes behind every pose")
    parser.add_argument("--threshold", type=float, default=0.05, help="of PCK, as a fraction of the image size")
    parser.add_argument("--occlusion-images", type=int, default=256, help="test images to hide parts of; 0 skips this")
    parser.add_argument(
        "--masks",
        type=str,
        default="centre:0.14,random:0.14,blocks:0.5,blocks:0.8",
        help="what to hide, KIND:SHARE of the image area, KIND centre, random or blocks",
    )
    about = "masks of DATA's images, white where the subject is: how many keypoints lie on it"
    parser.add_argument("--subject-masks", type=str | None, default=None, metavar="DIR", help=about)
    parser.add_argument("--rounds", type=int, default=4, help="of iterative inference after the plain estimate")
    add_compute(parser)
    options = parse(parser, arguments)
    at_least(options, iterations=1, occlusion_images=0, rounds=0)
    if not options.threshold > 0:
        raise ValueError(f"--threshold must be positive, got {options.threshold}")

    from ppl_fast._files import write_text
    from ppl_fast.evaluation import side_by_side
    from ppl_fast.visualization import save_occlusion

    masks = _masks(options.masks) if options.occlusion_images else ()
    out = place(options.out, options.run, "evaluation.json")
    curve = out.with_name(out.stem + CURVE)
    models = _models(options)
    check_outputs(out, curve)
    results = _measure(models, options, masks)
    metrics = side_by_side(results) if len(results) > 1 else next(iter(results.values()))
    print(table(metrics))
    if any(joints is not None for _, joints in models.values()):
        print("note: of images that named joints were learned from, their error is smaller than it will be on others")
    write_text(out, json.dumps(metrics, indent=2) + "\n")
    print(f"wrote {out}")
    if masks:
        hidden = {name: result["occlusion"] for name, result in results.items()}
        save_occlusion(curve, hidden, metrics["regression"]["baseline"])
        print(f"wrote {curve}")
    return 0


def _masks(text: str) -> list[tuple[str, float]]:
    """The pairs (kind, share) of --masks; what `evaluate_model` would refuse is refused here, before any work."""
    from ppl_fast.evaluation import check_masks

    masks = []
    for part in text.split(","):
        kind, _, share = part.strip().partition(":")
        try:
            masks.append((kind, float(share)))
        except ValueError:
            raise ValueError(f"--masks must list KIND:SHARE such as blocks:0.5, got {part.strip()!r}") from None
    check_masks(masks, rounds=0)
    return masks


def _models(options: Any) -> dict[str, tuple[KeypointModel, NamedJoints | None]]:
    """The models, and the joints that were named for them, by the names to print.

    These are the models' architectures, or where those are the same, the runs as given.
    """
    runs = [options.run] if options.beside is None else [options.run, options.beside]
    options.run, options.beside = [*map(fetch, runs), None][:2]
    models = [named_model(run, options) for run in (options.run, options.beside) if run is not None]
    names = [type(model).__name__ for model, _ in models]
    if len(set(names)) < len(names):
        names = runs
    if len(set(names)) < len(names):
        raise ValueError(f"--beside must name another run than RUN, got {options.beside} for both")
    return dict(zip(names, models, strict=True))


def _measure(
    models: dict[str, tuple[KeypointModel, NamedJoints | None]], options: Any, masks: Sequence[tuple[str, float]]
) -> dict[str, dict[str, Any]]:
    from ppl_fast.data.subjects import SubjectMasks
    from ppl_fast.evaluation import evaluate_model

    sets: dict[tuple[int, Framing], tuple[list[LabelledSet], SubjectMasks | None]] = {}
    results = {}
    for (name, (model, joints)), run in zip(models.items(), (options.run, options.beside), strict=False):
        seen = model.config["image_size"], framing_for(options, run)
        if seen not in sets:
            opened = _open_sets(options, *seen)
            sets[seen] = opened, options.subject_masks and SubjectMasks(options.subject_masks, opened[-1].dataset)
        labelled, subjects = sets[seen]
        if len(models) > 1:
            print(f"{name}:")
        results[name] = evaluate_model(
            model,
            *chain.from_iterable((each.dataset, each.labels) for each in labelled),
            protocol=labelled[-1].protocol,
            iterations=options.iterations,
            threshold=options.threshold,
            masks=masks,
            rounds=options.rounds,
            occlusion_images=max(options.occlusion_images, 1),
            max_missing_share=options.max_missing_share,
            joints=joints,
            subjects=subjects,
            batch_size=options.batch_size,
            workers=options.workers,
        )
    return results


def _open_sets(options: Any, image_size: int, framing: Framing) -> list[LabelledSet]:
    """The labelled set to divide, or one to fit on and one to measure on: a published data set has its own splits."""
    from ppl_fast.data.sets import known_name

    fit_on = options.train_data or (options.data if known_name(options.data) else None)
    specs = [(options.data, "test")] if fit_on is None else [(fit_on, "fit"), (options.data, "test")]
    return [open_labelled("evaluate", spec, image_size, options, framing, split) for spec, split in specs]


def table(metrics: dict[str, Any]) -> str:
    """The measurements as text: numbers, baselines and protocols, then the errors under occlusion round by round.

    Args:
        metrics: of one model by `evaluate_model`, or of several by `side_by_side`.
    """
    models = {metrics.get("model", ""): metrics} | metrics.get("beside", {})
    width = max(len(name) for name in models) + 2 * (len(models) > 1)
    images = metrics["images"]
    lines = [f"{images['train']} training and {images['test']} test images: {metrics['split']}"]
    lines += [f"note: {note}" for note in metrics.get("notes", ())] + [""]
    lines.append(f"{'measure':<14}{'model' * (width > 0):<{width}}{'value':>10}{'baseline':>10}")
    for measure in dict.fromkeys(("named", metrics.get("leading", "regression"), *SCORES)):
        scores = {name: result[measure] for name, result in models.items() if measure in result}
        for name, score in scores.items():
            baseline = f"{score['baseline']:10.4f}  ({score['baseline_name']})" if "baseline" in score else ""
            label = measure if score is next(iter(scores.values())) else ""
            lines.append(f"{label:<14}{name:<{width}}{score['value']:10.4f}{baseline}")
        lines += _protocols(scores)
    hidden = {name: result["occlusion"] for name, result in models.items() if "occlusion" in result}
    by_ridge = metrics.get("leading") == "ridge"
    return "\n".join(lines + (_occlusion_table(hidden, width, by_ridge) if hidden else []))


def _occlusion_table(hidden: dict[str, dict[str, Any]], width: int, by_ridge: bool) -> list[str]:
    rounds = max(len(result["clean_rounds"]) for result in hidden.values())
    headings = "".join(f"{r} round".rjust(10) if r == 1 else f"{r} rounds".rjust(10) for r in range(rounds))
    first = next(iter(hidden.values()))
    blocks = [("hidden: error", "rounds", "clean_rounds")]
    if all("clean_ridge" in result for result in hidden.values()):
        blocks = [("least squares", *blocks[0][1:])] if by_ridge else blocks
        blocks.insert(0 if by_ridge else 1, ("hidden: ridge" if by_ridge else "by ridge", "ridge", "clean_ridge"))
        blocks.append((f"PCK@{first['threshold']:g}", "pck", "clean_pck"))
    lines = []
    for title, key, clean in blocks:
        lines += ["", f"{title:<14}{'':<{width}}{headings}" + f"{'recovered':>12}" * (key == "rounds")]
        rows = [("nothing", {name: (result[clean], None) for name, result in hidden.items()})]
        for number, row in enumerate(first["rows"]):
            of = {name: result["rows"][number] for name, result in hidden.items()}
            label = f"{row['mask']} {row['share']:.0%}"
            rows.append((label, {name: (each[key], each["recovered"]) for name, each in of.items()}))
        for label, measured in rows:
            for name, (values, recovered) in measured.items():
                numbers = "".join(f"{value:10.4f}" for value in values) + " " * 10 * (rounds - len(values))
                share = f"{recovered:12.0%}" if key == "rounds" and recovered is not None else ""
                lines.append(f"{label:<14}{name:<{width}}{numbers}{share}".rstrip())
                label = ""
    return lines + _protocols(hidden)


def _protocols(results: dict[str, dict[str, Any]]) -> list[str]:
    """Each protocol once; where those of the models differ, with their names."""
    texts = {name: result["protocol"] for name, result in results.items()}
    if len(set(texts.values())) == 1:
        return [f"    {next(iter(texts.values()))}"]
    return [f"    {name}: {text}" for name, text in texts.items()]
