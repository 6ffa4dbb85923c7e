"""ppl-fast export: a trained model as a file that other runtimes run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ppl_fast._files import readable
from ppl_fast.commands.options import add_run, check_outputs, command_parser, fetch, parse
from ppl_fast.options.export import SUFFIXES

if TYPE_CHECKING:
    from ppl_fast.export import Exported

DESCRIPTION = """Write a trained model as a file that estimates poses without ppl_fast, any number of images at once:
onnx, for ONNX runtimes; torchexport, for torch.export.load; aoti, a compiled package, for
torch._inductor.aoti_load_package and C++. What ppl-fast calibrate and ppl-fast name have made is part of it."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("export", DESCRIPTION, "RUN --out FILE [--format onnx] [options]")
    add_run(parser)
    parser.add_argument("--out", type=str, required=True, help="file to write: .onnx, or .pt2 for the others")
    parser.add_argument("--format", type=Literal[tuple(SUFFIXES)], default="onnx", help="of --out")
    parser.add_argument("--iterations", type=int, default=1, help="passes of inference, 1 more than rounds")
    parser.add_argument("--visible", action="store_true", help="take a second input, False where the images are hidden")
    parser.add_argument(
        "--confidence",
        type=bool,
        default=True,
        help="give how sure each keypoint is, by ppl-fast calibrate where that was run; takes two more passes",
    )
    parser.add_argument(
        "--keypoints", action="store_true", help="leave out the joints, also where ppl-fast name has made some"
    )
    parser.add_argument("--device", type=str, default="cpu", help="that aoti compiles for: cpu, or as cuda:0")
    options = parse(parser, arguments)
    if options.iterations < 1:
        raise ValueError(f"--iterations must be at least 1, got {options.iterations}")
    if Path(options.out).suffix != SUFFIXES[options.format]:
        raise ValueError(
            f"--out must end in {SUFFIXES[options.format]} for --format {options.format}, got {options.out}"
        )
    if options.device != "cpu" and options.format != "aoti":
        raise ValueError(f"--device is for --format aoti alone; files of the format {options.format} run anywhere")

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
    confidence = options.confidence and (load_calibration(folder, model.settings.num_keypoints) or True)
    framing = load_framing(options.run)
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
    )
    print(f"wrote {readable(options.out)}: {Path(options.out).stat().st_size / 1e6:.1f} MB, {_said(written)}")
    return 0


def _said(written: "Exported") -> str:
    """What is in the file, a line for each input and output."""
    passes = "one pass" if written.iterations == 1 else f"{written.iterations} passes"
    lines = [f"{passes} of {written.architecture}"]
    for what, values in (("input", written.inputs), ("output", written.outputs)):
        lines += [f"  {what:<7}{name:<21}{_typed(value):<28}{value['meaning']}" for name, value in values.items()]
    return "\n".join(lines)


def _typed(value: dict[str, Any]) -> str:
    return f"{value['dtype']} ({', '.join(map(str, value['shape']))})"
