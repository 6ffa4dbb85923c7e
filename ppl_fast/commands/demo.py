"""ppl-fast demo: figures, training, evaluation and pictures in one go."""

from pathlib import Path

from ppl_fast.commands.options import add_device, command_parser, parse
from ppl_fast.options.demo import BASELINE_STEPS, FIGURES, STEPS, TEST_FIGURES

DESCRIPTION = "Learn a pose prior from drawn figures without their labels, measure it, and show what was learned."
WRITTEN = {
    "poses.png": "held-out figures with the keypoints and links found",
    "masks.png": "what moves in some of the images, which links and keypoints are drawn to",
    "prior.png": "the pose prior as it evolved",
    "memory.png": "what single memory vectors stand for",
    "occlusion.png": "iterative inference on partly hidden figures, round by round",
    "occlusion_curve.png": "errors on them, PPL beside AutoLink",
    "training.png": "learning curves",
    "metrics.json": "all numbers with their protocols",
    "page.html": "all of it in a browser",
    "model": "the trained model, for ppl_fast.PPL.from_pretrained",
}


def main(arguments: list[str]) -> int:
    """Run the command; its options are the arguments of `run_demo`."""
    parser = command_parser("demo", DESCRIPTION, "[options]")
    out = "run directory; the figures, and AutoLink's run, lie in folders beside it"
    parser.add_argument("--out", type=str, default="runs/demo", help=out)
    parser.add_argument("--seed", type=int, default=0, help="of figures and training")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of PPL")
    parser.add_argument("--images", type=int, default=FIGURES, help="figures to train on")
    parser.add_argument("--test-images", type=int, default=TEST_FIGURES, help="held-out figures to measure on")
    parser.add_argument("--baseline-steps", type=int, default=BASELINE_STEPS, help="optimizer steps of AutoLink")
    add_device(parser)
    options = parse(parser, arguments)

    from ppl_fast.commands.evaluate import table
    from ppl_fast.demo import run_demo

    metrics = run_demo(**options.as_dict(), processes=2)
    print(f"\n{table(metrics)}\n")
    for measure in ("prior", "memory"):
        numbers = {key: value for key, value in metrics[measure].items() if key != "protocol"}
        print(f"{measure}: " + ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in numbers.items()))
        print(f"    {metrics[measure]['protocol']}")
    seconds = metrics["demo"]["seconds"]
    parts = ", ".join(f"{name} {s:.0f} s" for name, s in seconds.items() if s >= 0.5)
    print(f"\n{sum(seconds.values()) / 60:.1f} minutes ({parts}). In {options.out}:")
    for name, what in WRITTEN.items():
        print(f"  {name:<21}{what}")
    print(f"\nlook at {Path(options.out, 'page.html').resolve()}")
    return 0
