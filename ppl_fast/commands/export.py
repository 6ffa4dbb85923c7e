"""ppl-fast export: a trained model as a file that other runtimes run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ppl_fast._files import readable
from ppl_fast.commands.options import add_run, at_least, check_outputs, command_parser, fetch, parse
from ppl_fast.options.export import SUFFIXES, check_int8

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser
    from torch import Tensor

    from ppl_fast.export import Exported
    from ppl_fast.options.footage import Framing

DESCRIPTION = """Write a trained model as a file that estimates poses without ppl_fast, any number of images at once:
onnx, for ONNX runtimes; torchexport, for torch.export.load; aoti, a compiled package, for
torch._inductor.aoti_load_package and C++. What ppl-fast calibrate and ppl-fast name have made is part of it."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parse(_parser(), arguments)
    at_least(options, iterations=1)
    if Path(options.out).suffix != SUFFIXES[options.format]:
        raise ValueError(
            f"--out must end in {SUFFIXES[options.format]} for --format {options.format}, got {options.out}"
        )
    if options.device != "cpu" and options.format != "aoti":
        raise ValueError(f"--device is for --format aoti alone; files of the format {options.format} run anywhere")
    if options.int8 is not None:
        given = {"iterations": options.iterations > 1, "visible": options.visible, "confidence": options.confidence}
        check_int8(options.format, given, command=True)

    from ppl_fast._devices import pick
    from ppl_fast.export import export
    from ppl_fast.export.formats import check
    from ppl_fast.inference import load_calibration
    from ppl_fast.naming import load_joints
    from ppl_fast.training.run import find_model, load_framing, load_model

    check(options.out, options.format)
    options.run = fetch(options.run)
    folder, device = find_model(options.run), pick(options.device)
    model = load_model(options.run)
    joints = None if options.keypoints else load_joints(folder, model)
    sure = options.int8 is None if options.confidence is None else options.confidence
    confidence = sure and (load_calibration(folder, model.settings.num_keypoints) or True)
    framing = load_framing(options.run)
    images = None if options.int8 is None else _images(options.int8, model.settings.image_size, framing)
    check_outputs(options.out)
    written = export(
        model.to(device),
        options.out,
        options.format,
        iterations=options.iterations,
        visible=options.visible,
        confidence=confidence,
        joints=joints,
        framing=framing,
        int8=images,
    )
    print(f"wrote {readable(options.out)}: {Path(options.out).stat().st_size / 1e6:.1f} MB, {_said(written)}")
    if written.int8 is not None:
        for name, off in written.int8["moved"].items():
            print(
                f"int8 moves {name} by {off['mean']:.4f} of the side in the mean, 99 % by less than {off['p99']:.4f}, "
                f"on {written.int8['images']} images that the ranges are not of"
            )
    return 0


def _parser() -> "ArgumentParser":
    """Of the command."""
    parser = command_parser("export", DESCRIPTION, "RUN --out FILE [--format onnx] [options]")
    add_run(parser)
    parser.add_argument("--out", type=str, required=True, help="file to write: .onnx, or .pt2 for the others")
    parser.add_argument("--format", type=Literal[tuple(SUFFIXES)], default="onnx", help="of --out")
    parser.add_argument("--iterations", type=int, default=1, help="passes of inference, 1 more than rounds")
    parser.add_argument("--visible", action="store_true", help="take a second input, False where the images are hidden")
    parser.add_argument(
        "--confidence",
        type=bool | None,
        default=None,
        help="give how sure each keypoint is, by ppl-fast calibrate where that was run; takes two more passes "
        "(default: yes, without --int8)",
    )
    parser.add_argument(
        "--int8",
        type=str | None,
        default=None,
        metavar="IMAGES",
        help="for onnx: convolutions in int8, for CPUs; images as the model will see, to take ranges from, and to "
        "say by how much keypoints move",
    )
    parser.add_argument(
        "--keypoints", action="store_true", help="leave out the joints, also where ppl-fast name has made some"
    )
    parser.add_argument("--device", type=str, default="cpu", help="that aoti compiles for: cpu, or as cuda:0")
    return parser


def _images(folder: str, size: int, framing: "Framing") -> "Tensor":
    """Images of a folder, spread evenly, as the model sees them."""
    import torch

    from ppl_fast.data import open_set
    from ppl_fast.export.int8 import FEWEST, MOST

    images = open_set(folder, size, framing=framing).dataset
    if len(images) < 2 * FEWEST:
        raise ValueError(f"--int8 needs at least {2 * FEWEST} images, got {len(images)} in {folder}")
    chosen = torch.linspace(0, len(images) - 1, min(len(images), 2 * MOST)).long().tolist()
    return torch.stack([images[i] for i in chosen])


def _said(written: "Exported") -> str:
    """What is in the file, a line for each input and output."""
    passes = "one pass" if written.iterations == 1 else f"{written.iterations} passes"
    lines = [f"{passes} of {written.architecture}"]
    for what, values in (("input", written.inputs), ("output", written.outputs)):
        lines += [f"  {what:<7}{name:<21}{_typed(value):<28}{value['meaning']}" for name, value in values.items()]
    return "\n".join(lines)


def _typed(value: dict[str, Any]) -> str:
    return f"{value['dtype']} ({', '.join(map(str, value['shape']))})"
