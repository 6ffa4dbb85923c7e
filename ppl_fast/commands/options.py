"""What the commands share: parsers with one-sentence errors, option groups from dataclasses, output checks."""

import os
import re
from argparse import ArgumentError
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from ppl_fast._extras import needing
from ppl_fast._files import is_stream
from ppl_fast._options import nearest

with needing("this command needs", "train"):
    from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from ppl_fast.data.framing import Framing
    from ppl_fast.models import KeypointModel


def command_parser(name: str, description: str, usage: str) -> ArgumentParser:
    """A parser that leaves the reporting of errors to the caller."""
    return ArgumentParser(
        prog=f"ppl-fast {name}",
        description=f"{description} With --debug, errors come with their traceback.",
        usage=f"ppl-fast {name} {usage}",
        exit_on_error=False,
        print_config=None,
        allow_abbrev=False,
    )


def add_dataclass(parser: ArgumentParser, section: str, options: type) -> None:
    """Add each field of a dataclass, whose metadata hold help and choices, as --section.name and as --na-me."""
    hints = get_type_hints(options)
    group = parser.add_argument_group(f"options of the section {section!r} of a config file")
    for field in fields(options):
        choices = field.metadata["choices"]
        group.add_argument(
            f"--{section}.{field.name}",
            f"--{field.name.replace('_', '-')}",
            type=Literal[choices] if choices else hints[field.name],
            default=field.default,
            help=field.metadata["help"].replace("%", "%%"),
        )


def add_compute(parser: ArgumentParser) -> None:
    """Add the options of commands that run a trained model over images."""
    parser.add_argument("--batch-size", type=int, default=32, help="images a batch")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument(
        "--device", type=str, default="auto", help="auto, the accelerator that torch finds; cpu; or as cuda:1, mps, xpu"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")


def add_crop(parser: ArgumentParser) -> None:
    """Add the option that `framing_for` reads."""
    parser.add_argument(
        "--crop",
        type=str | None,
        default=None,
        metavar="FILE",
        help="boxes to look into, CSV or COCO, or the word moving (default: as the run was trained)",
    )


def parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Parse, or raise a ValueError of one sentence that names the option."""
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        raise ValueError(_sentence(parser, " ".join(str(error).split()))) from error


def check_outputs(*files: str | Path | None, folder: str | None = None) -> None:
    """Create the folders that outputs go to, and refuse those that cannot be written, before any work is done."""
    for path in (Path(name) for name in files if name is not None):
        if is_stream(path):
            continue
        if path.is_dir():
            raise IsADirectoryError(f"output {path} is a directory; expected the name of a file")
        _check_folder(path.parent)
    if folder is not None:
        _check_folder(Path(folder))


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot create the output folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"output folder {folder} is not writable")


def ready_model(run: str, options: Any) -> "KeypointModel":
    """The model of a run on the device asked for, with the number of threads asked for."""
    import torch

    from ppl_fast._devices import pick
    from ppl_fast.training import load_model

    for name, low in (("batch_size", 1), ("workers", 0), ("threads", 0)):
        if getattr(options, name) < low:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {low}, got {getattr(options, name)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick(options.device)
    return load_model(run).to(device).eval()


def framing_for(options: Any, run: str | None = None) -> "Framing":
    """What the model of a run sees of images: as in its training, but with boxes from another place where --crop says.

    Raises:
        ValueError: the run was trained on boxes from a file, and --crop names none for these images.
    """
    from dataclasses import replace

    from ppl_fast.data.framing import MOVING
    from ppl_fast.training import load_framing

    found = load_framing(run or options.run)
    if options.crop is not None:
        return replace(found, crop=options.crop, turn=found.turn and options.crop == MOVING)
    if found.crop not in (None, MOVING):
        raise ValueError(
            f"{run or options.run} was trained on boxes from the file {found.crop}; --crop names the file of those of "
            f"these images, or the word {MOVING}"
        )
    return found


def _sentence(parser: ArgumentParser, message: str) -> str:
    """The report of jsonargparse as one sentence; an unknown option gets the nearest valid one."""
    wrong = re.search(r'Parser key "([^"]+)": Expected an? (.+?)\. Got value: (.*)', message)
    if wrong:
        key, kind, value = wrong.groups()
        kind = re.sub(r"<class '(.+?)'>|typing\.", r"\1", kind)
        choices = re.fullmatch(r"Literal\[(.*)\]", kind)
        expected = f"one of {choices[1]}" if choices else f"of type {kind}"
        return f"option {key} must be {expected}, got {value}"
    unknown = re.search(r"(--[\w.-]+)", message) if "nrecognized" in message else None
    if unknown:
        valid = [name for action in parser._actions for name in action.option_strings]
        near = nearest(unknown[1], valid)
        return f"unknown option {unknown[1]}" + (f"; did you mean {near}?" if near else "; see --help")
    return message
