"""ppl-fast evaluate: a trained model against labels, by every protocol."""

import json
from pathlib import Path

from .options import add_compute, check_outputs, command_parser, parse, ready_model

DESCRIPTION = """Measure a run against the labels in DATA (keypoints.npz or COCO keypoint JSON), mean pose beside.
The regression from detected to labelled keypoints is fitted on --train-data; without it, DATA is divided."""
SCORES = ("regression", "matching", "pck", "limb_share")


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("evaluate", DESCRIPTION, "RUN DATA [--train-data DIR] [options]")
    parser.add_argument("run", metavar="RUN", type=str, help="run directory, checkpoint or saved model")
    parser.add_argument("data", metavar="DATA", type=str, help="folder of labelled images to measure on")
    parser.add_argument("--train-data", type=str | None, default=None, help="folder of labelled images to fit on")
    parser.add_argument("--out", type=str | None, default=None, help="metrics file (default: RUN/metrics.json)")
    parser.add_argument("--iterations", type=int, default=1, help="rounds of inference behind every pose")
    parser.add_argument("--threshold", type=float, default=0.05, help="of PCK, as a fraction of the image size")
    parser.add_argument("--occlusion-images", type=int, default=256, help="test images to hide parts of; 0 skips this")
    add_compute(parser)
    options = parse(parser, arguments)
    for name, low in (("iterations", 1), ("occlusion_images", 0)):
        if getattr(options, name) < low:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {low}, got {getattr(options, name)}")
    if not options.threshold > 0:
        raise ValueError(f"--threshold must be positive, got {options.threshold}")

    from ppl_fast.data import ImageFolder, load_labels
    from ppl_fast.data.atomic import replacing
    from ppl_fast.evaluation import MASKS, evaluate_model

    model = ready_model(options.run, options)
    out = options.out or Path(options.run, "metrics.json")
    check_outputs(out)
    folders = [options.train_data, options.data] if options.train_data else [options.data]
    labels = [load_labels(folder) for folder in folders]
    sets = [ImageFolder(folder, model.config["image_size"]) for folder in folders]
    pairs = [part for pair in zip(sets, labels, strict=True) for part in pair]
    metrics = evaluate_model(
        model,
        *pairs,
        iterations=options.iterations,
        threshold=options.threshold,
        masks=MASKS if options.occlusion_images else (),
        occlusion_images=max(options.occlusion_images, 1),
        batch_size=options.batch_size,
        workers=options.workers,
    )
    print(table(metrics))
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {out}")
    return 0


def table(metrics: dict) -> str:
    """The measurements as text: number, baseline and protocol, then the errors under occlusion round by round."""
    images = metrics["images"]
    lines = [f"{images['train']} training and {images['test']} test images: {metrics['split']}", ""]
    lines.append(f"{'measure':<12}{'value':>10}{'baseline':>10}")
    for name in SCORES:
        score = metrics.get(name)
        if score:
            baseline = f"{score['baseline']:10.4f}  ({score['baseline_name']})" if "baseline" in score else ""
            lines += [f"{name:<12}{score['value']:10.4f}{baseline}", f"    {score['protocol']}"]
    hidden = metrics.get("occlusion")
    if hidden:
        rounds = range(1, len(hidden["rows"][0]["rounds"]) + 1)
        lines += ["", f"{'hidden':<14}" + "".join(f"{f'round {r}':>10}" for r in rounds) + f"{'recovered':>12}"]
        lines.append(f"{'nothing':<14}{hidden['clean']:10.4f}")
        for row in hidden["rows"]:
            recovered = f"{row['recovered']:12.0%}" if row["recovered"] is not None else ""
            label = f"{row['mask']} {row['share']:.0%}"
            lines.append(f"{label:<14}" + "".join(f"{error:10.4f}" for error in row["rounds"]) + recovered)
        lines.append(f"    {hidden['protocol']}")
    return "\n".join(lines)
