"""ppl-fast convert: published checkpoints to model directories, and back."""

from pathlib import Path

from ppl_fast._files import is_taken, new_folder, replacing
from ppl_fast.commands.options import check_outputs, command_parser, parse

DESCRIPTION = """Turn a checkpoint of the published PPL or AutoLink code into a model directory for the other commands,
without running anything that is in it; or, with --to-published, a model into the published state dict."""
SET = {  # what a published state dict does not hold; a pickled module and a Lightning checkpoint do
    "thickness": (float, "squared width of a link; published: thick"),
    "link_factor": (float, "link weight = softplus(factor * parameter); published: sklr"),
    "mask_blocks": (int, "blocks a side that the reference image is dropped in; published: block"),
    "mask_ratio": (float, "share of blocks dropped in training; published: missing"),
    "image_size": (int, "side of the images in pixels"),
}


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("convert", DESCRIPTION, "CHECKPOINT OUT [options]")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=str, help="published checkpoint, or a run or model")
    parser.add_argument("out", metavar="OUT", type=str, help="new or empty folder; with --to-published, a .pth file")
    for name, (kind, what) in SET.items():
        what = f"{what}; default: the checkpoint's, or else the published default"
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None, help=what)
    parser.add_argument("--to-published", action="store_true", help="write the published state dict of a run or model")
    options = parse(parser, arguments)
    given = {name: getattr(options, name) for name in SET if getattr(options, name) is not None}
    if not options.to_published:
        return _from_published(options.checkpoint, Path(options.out), given)
    if given:
        raise ValueError(
            f"--to-published takes none of the model's options, got --{next(iter(given)).replace('_', '-')}"
        )
    return _to_published(options.checkpoint, Path(options.out))


def _from_published(checkpoint: str, out: Path, given: dict[str, float]) -> int:
    from ppl_fast.published.checkpoints import assumed, build, read_checkpoint

    if is_taken(out):
        raise FileExistsError(f"{out} exists and is not an empty folder; name another OUT")
    check_outputs(folder=str(out.parent))
    found = read_checkpoint(checkpoint)
    model = build(None, found, **given)
    with new_folder(out) as folder:  # both files or none
        model.save_pretrained(folder)
    print(f"wrote the {type(model).__name__} of {model.settings.num_keypoints} keypoints to {out}")
    for name in assumed(found, given):
        value = getattr(model.settings, name)
        print(f"{checkpoint} does not hold its {name}: took {value:g}; --{name.replace('_', '-')} sets another")
    return 0


def _to_published(run: str, out: Path) -> int:
    check_outputs(out)

    import torch

    from ppl_fast.training import load_model

    state = load_model(run).to_published()
    with replacing(out) as temporary:
        torch.save(state, temporary)
    print(f"wrote a published state dict of {len(state)} entries to {out}")
    return 0
