"""ppl-fast demo: figures, training, evaluation and pictures in one go."""

import re
from pathlib import Path

from ppl_fast.commands.options import command_parser, parse

DESCRIPTION = "Learn a pose prior from drawn figures without their labels, measure it, and show what was learned."
WRITTEN = {
    "poses.png": "held-out figures with the keypoints and links found",
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
    from ppl_fast.commands.evaluate import table
    from ppl_fast.demo import run_demo

    # As everywhere else, words may be joined by hyphens, where the function's arguments have underscores.
    arguments = [re.sub(r"^--[a-z-]+", lambda option: f"--{option[0][2:].replace('-', '_')}", a) for a in arguments]
    parser = command_parser("demo", DESCRIPTION, "[options]")
    parser.add_function_arguments(run_demo, as_positional=False)
    options = parse(parser, arguments)
    metrics = run_demo(**options.as_dict())
    print(f"\n{table(metrics)}\n")
    for measure in ("prior", "memory"):
        numbers = {key: value for key, value in metrics[measure].items() if key != "protocol"}
        print(f"{measure}: " + ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in numbers.items()))
        print(f"    {metrics[measure]['protocol']}")
    seconds = metrics["demo"]["seconds"]
    parts = ", ".join(f"{name} {s:.0f} s" for name, s in seconds.items())
    print(f"\n{sum(seconds.values()) / 60:.1f} minutes ({parts}). In {options.out}:")
    for name, what in WRITTEN.items():
        print(f"  {name:<21}{what}")
    print(f"\nlook at {Path(options.out, 'page.html').resolve()}")
    return 0
