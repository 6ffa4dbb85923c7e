"""ppl-fast show: what a trained model has learned, as pictures."""

from pathlib import Path
from typing import Any

from ppl_fast.commands.options import add_run, check_outputs, command_parser, fetch, parse, place

DESCRIPTION = """Draw what a run has learned, without any image: the keypoint prior, the connectivity matrix, the poses
that the memory's vectors stand for, one varied at a time, and how much of the memory is used.
An AutoLink run has links alone."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("show", DESCRIPTION, "RUN [--out DIR]")
    add_run(parser)
    parser.add_argument("--out", type=str | None, default=None, metavar="DIR", help="folder (default: RUN/show)")
    options = parse(parser, arguments)

    from ppl_fast.training import load_model
    from ppl_fast.visualization import save_connectivity

    out = place(options.out, options.run, "show")
    model = load_model(fetch(options.run))
    check_outputs(folder=str(out))
    name, links = type(model).__name__, len(model.links)
    print(f"{name}: {model.config['num_keypoints']} keypoints, {links} links")
    written = [(out / "connectivity.png", "the weight of every link")]
    save_connectivity(written[0][0], model.connectivity())
    prior, memory = model.prior(), model.memory_report()
    if prior is not None:
        written = _draw_prior(prior, out) + written
    if memory is not None:
        written += _draw_memory(memory, model, out)
    if prior is None and memory is None:
        learned = "links but no prior" if links else "neither links nor a prior"
        print(f"{name} learns {learned} and has no memory, so its connectivity is all there is to show.")
    for path, what in written:
        print(f"wrote {path}: {what}")
    return 0


def _draw_prior(prior: Any, out: Path) -> list[tuple[Path, str]]:
    from ppl_fast.visualization import save_keypoint_prior

    save_keypoint_prior(out / "prior.png", prior.keypoints, prior.connectivity, legend=True)
    return [(out / "prior.png", "the keypoint prior, numbered as in connectivity.png")]


def _draw_memory(memory: Any, model: Any, out: Path) -> list[tuple[Path, str]]:
    from ppl_fast.visualization import save_prototype_pages, save_usage

    poses, sizes, perplexity, dead = memory
    banks, vectors = sizes.shape
    print(
        f"memory: {banks} banks of {vectors} vectors; perplexity {perplexity.mean():.1f} "
        f"({perplexity.min():.1f} to {perplexity.max():.1f} by bank), {int(dead.sum())} of {banks * vectors} dead"
    )
    save_usage(out / "usage.png", perplexity, dead, vectors)
    links, weights = model.links, model.link_weights().detach()
    pages = save_prototype_pages(out, poses, links, weights, sizes, legend=True)
    return [(out / "usage.png", "perplexity and dead vectors of each bank")] + [
        (page, "what the vectors of each bank stand for") for page in pages
    ]
