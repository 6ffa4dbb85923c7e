"""What the commands share: parsers with one-sentence errors, option groups from dataclasses, output checks."""

import re
from argparse import SUPPRESS, Action, ArgumentError
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from ppl_fast._documents import MAX_PIXELS
from ppl_fast._extras import needing
from ppl_fast._files import check_writable, is_stream
from ppl_fast._messages import nearest
from ppl_fast._options import metadata_of

with needing("this command needs", "train"):
    from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

if TYPE_CHECKING:
    from ppl_fast.models import KeypointModel
    from ppl_fast.naming import NamedJoints


class AllHelp(DefaultHelpFormatter):
    """Help on every option: its short name, then the one that a config file has for it."""

    def names(self, action: Action) -> list[str]:
        """An option's names in the order to show them."""
        return sorted(action.option_strings, key=lambda name: "." in name)

    def _get_help_string(self, action: Action) -> str:
        """What an option means, and its default unless the text names one; a default tells the type as well."""
        if action.help is None or isinstance(action.default, str) and action.default == SUPPRESS:
            return str(super()._get_help_string(action))  # --help itself
        notes = ["required"] * (action.required and bool(action.option_strings))
        told = "default:" in action.help or action.nargs == 0 or action.default is None
        notes += [] if told or not action.option_strings else ["default: %(default)s"]
        return action.help + (f" ({', '.join(notes)})" if notes else "")

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        value = "" if action.nargs == 0 else self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(self.names(action))} {value}".rstrip()


class EverydayHelp(AllHelp):
    """Help on the options that are not marked as rare, by their short names."""

    def names(self, action: Action) -> list[str]:
        """The names without a section."""
        return [name for name in action.option_strings if "." not in name]

    def add_argument(self, action: Action) -> None:
        """Take an option into the help, or leave it to --help-all."""
        if not getattr(action, "rare", False):
            super().add_argument(action)


def command_parser(name: str, description: str, usage: str) -> ArgumentParser:
    """A parser that leaves the reporting of errors to the caller."""
    parser = ArgumentParser(
        prog=f"ppl-fast {name}",
        description=f"{description} With --debug, errors come with their traceback.",
        usage=f"ppl-fast {name} {usage}",
        exit_on_error=False,
        print_config=None,
        allow_abbrev=False,
        formatter_class=EverydayHelp,
    )
    parser.add_argument("--help-all", action="help", help="Show all options, the rare ones too, and exit.")
    return parser


def add_dataclass(parser: ArgumentParser, section: str, options: type) -> None:
    """Add each field of a dataclass, whose metadata are those of `option`, as --section.name and as --na-me."""
    hints = get_type_hints(options)
    group = parser.add_argument_group(f"options of the section {section!r} of a config file")
    for field in fields(options):
        choices = metadata_of(field)["choices"]
        added = group.add_argument(
            f"--{section}.{field.name}",
            f"--{field.name.replace('_', '-')}",
            type=Literal[choices] if choices else hints[field.name],
            default=field.default,
            help=metadata_of(field)["help"].replace("%", "%%"),
        )
        added.rare = not metadata_of(field)["everyday"]


def add_device(parser: ArgumentParser) -> None:
    """Add the option that says which device computes."""
    parser.add_argument(
        "--device", type=str, default="auto", help="auto, the accelerator that torch finds; cpu; or as cuda:1, mps, xpu"
    )


def add_compute(parser: ArgumentParser) -> None:
    """Add the options of commands that run a trained model over images."""
    parser.add_argument("--batch-size", type=int, default=32, help="images a batch")
    workers = parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    share = parser.add_argument(
        "--max-bad-share", type=float, default=0.1, help="share of unreadable files that are skipped"
    )
    pixels = parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, help="pixels of an image or frame that may be decoded at once"
    )
    add_device(parser)
    threads = parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")
    workers.rare = share.rare = pixels.rare = threads.rare = True


def add_run(parser: ArgumentParser, *, anywhere: bool = True) -> None:
    """Add the trained model to read; `anywhere` also one on the hub, which `fetch` finds."""
    where = "run directory, checkpoint or saved model"
    named = "; or where there is no such folder, org/name or org/name@revision on the hub"
    parser.add_argument("run", metavar="RUN", type=str, help=where + named * anywhere)


def fetch(run: str) -> str:
    """The folder of a trained model, which for a name on the hub is in the hub's cache."""
    from ppl_fast.models import hub

    return str(hub.local(run))


def own_folder(command: str, run: str) -> None:
    """Raise a ValueError where RUN is no folder but a name on the hub, for what is kept beside the model."""
    from ppl_fast.models import hub

    if hub.is_name(run):
        raise ValueError(
            f"{command}: what it makes is kept beside the model, so RUN must be a folder; there is none at {run}"
        )


def place(out: str | None, run: str, file: str) -> Path:
    """Where an output goes, by default within RUN, which must be a folder then."""
    from ppl_fast.models import hub

    if out is None and hub.is_name(run):
        raise ValueError(f"--out must say where to write, since {run} is no folder")
    return Path(run, file) if out is None else Path(out)


def at_least(options: Any, **lows: int) -> None:
    """Raise a ValueError where an option that was given is below the number named for it."""
    for name, low in lows.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {low}, got {value}")


def parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Parse, or raise a ValueError of one sentence that names the option; words may be joined by - and _ alike."""
    if "--help-all" in arguments:
        parser.formatter_class, arguments = AllHelp, ["--help"]
    try:
        return parser.parse_args([_spelled(parser, word) for word in arguments])
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
    check_writable(folder)


def ready_model(run: str, options: Any) -> "KeypointModel":
    """`trained_model`, optimised for estimation."""
    from ppl_fast.models import optimize

    return optimize(trained_model(run, options))


def named_model(run: str, options: Any) -> "tuple[KeypointModel, NamedJoints | None]":
    """`ready_model`, and what `ppl-fast name` has kept beside it: None where that was not called, or not asked for."""
    from ppl_fast.models import optimize
    from ppl_fast.naming import load_joints
    from ppl_fast.training.run import find_model

    model = trained_model(run, options)
    return optimize(model), None if getattr(options, "keypoints", False) else load_joints(find_model(run), model)


def trained_model(run: str, options: Any) -> "KeypointModel":
    """The model of a run as it was trained, on the device and with the number of threads asked for."""
    import torch

    from ppl_fast._devices import pick
    from ppl_fast.training import load_model

    at_least(options, batch_size=1, workers=0, threads=0)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick(options.device)
    return load_model(run).to(device).eval()


def _spelled(parser: ArgumentParser, word: str) -> str:
    """An argument with its option's name as the parser has it, --section.na_me or --na-me, where that is the option."""
    name, sign, value = word.partition("=")
    section, dot, option = name.rpartition(".")
    known = f"{section}.{option.replace('-', '_')}" if dot else name.replace("_", "-")
    return f"{known}{sign}{value}" if known in parser._option_string_actions else word


def _sentence(parser: ArgumentParser, message: str) -> str:
    """The report of jsonargparse as one sentence; an unknown option gets the nearest valid one."""
    union = (
        r'Parser key "([^"]+)": Does not validate against .*?Subtypes: \[(.+?), <class .NoneType.>\].*Given value: (.*)'
    )
    wrong = re.search(r'Parser key "([^"]+)": Expected an? (.+?)\. Got value: (.*)', message)
    wrong = wrong or re.search(union, message)
    if wrong:
        key, kind, value = wrong.groups()
        kind = re.sub(r"<class '(.+?)'>|typing\.", r"\1", kind)
        choices = re.fullmatch(r"Literal\[(.*)\]", kind)
        expected = f"one of {choices[1]}" if choices else "true or false" if kind == "bool" else f"of type {kind}"
        return f"option {key} must be {expected}, got {value}"
    unknown = re.search(r"(--[\w.-]+)", message) if "nrecognized" in message else None
    if unknown:
        valid = [name for action in parser._actions for name in action.option_strings]
        near = nearest(unknown[1], valid)
        return f"unknown option {unknown[1]}" + (f"; did you mean {near}?" if near else "; see --help")
    if "arguments are required: " in message:
        return f"{message}; usage: {parser.usage}"
    if valueless := re.search(r"argument (\S+): expected one argument", message):
        return f"option {min(valueless[1].split('/'), key=len)} needs a value"
    if more := re.search(r"nrecognized arguments: (.+)", message):
        return f"nothing takes {more[1]!r}; see --help"
    return message
