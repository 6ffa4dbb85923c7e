"""ppl-fast push: a run's model to the Hugging Face Hub."""

import tempfile
from pathlib import Path

from ppl_fast._extras import needing
from ppl_fast._files import new_folder, readable
from ppl_fast.commands.options import add_run, command_parser, parse

DESCRIPTION = """Send a model to the Hugging Face Hub, with what ppl-fast calibrate and ppl-fast name have made for it,
the options of its training, and a card: data, options, the last evaluation, pictures, how to load it. Weights are sent
as safetensors, paths of this machine and names of images are not. Nothing is sent before all of it was made and read
again. Logging in is the hub's: hf auth login, or HF_TOKEN."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("push", DESCRIPTION, "RUN ORG/NAME --license ID [--out DIR] [options]")
    add_run(parser, anywhere=False)
    parser.add_argument("name", metavar="ORG/NAME", type=str, help="on the hub; made where it is not there")
    parser.add_argument(
        "--license", type=str | None, default=None, metavar="ID", help="as the hub names it: mit, cc-by-4.0, other, ..."
    )
    parser.add_argument("--private", action="store_true", help="for nobody else to read")
    parser.add_argument(
        "--revision", type=str | None, default=None, help="branch to send to, made where it is not there"
    )
    parser.add_argument("--poses", action="store_true", help="send poses.png, too: it shows images of the training")
    parser.add_argument(
        "--out", type=str | None, default=None, metavar="DIR", help="write the files there to look at, and send nothing"
    )
    options = parse(parser, arguments)
    if options.license is None:
        raise ValueError("push: --license must say under which licence others may use the model, such as mit")

    with needing("ppl-fast push needs", "data"):
        from ppl_fast.page.sending import contents, fill
    from ppl_fast.models import hub

    hub.check(options.name, options.license)

    def filled(folder: Path) -> None:
        notes = fill(folder, options.run, options.name, options.license, revision=options.revision, poses=options.poses)
        for name, size in contents(folder):
            print(f"  {name:<22}{size / 1e3:>12,.1f} kB")
        for note in notes:
            print(f"note: {note}")

    if options.out is not None:
        with new_folder(options.out) as folder:
            filled(folder)
        print(f"wrote {readable(options.out)}; nothing was sent")
        return 0
    with tempfile.TemporaryDirectory(prefix="ppl_fast_") as made:
        filled(Path(made))
        address = hub.send(Path(made), options.name, private=options.private, revision=options.revision)
    print(f"sent {options.name}: {address}")
    return 0
