"""ppl-fast train: learn a pose prior from a folder of images."""

from __future__ import annotations

import contextlib
from argparse import ArgumentError, Namespace
from argparse import ArgumentParser as PlainParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ppl_fast._files import meant
from ppl_fast.commands.options import add_dataclass, command_parser, parse
from ppl_fast.options import CONFIGS
from ppl_fast.options.migration import extension
from ppl_fast.training import TrainConfig
from ppl_fast.training.config import check_options, read_config
from ppl_fast.training.presets import preset_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

DESCRIPTION = """Learn keypoints, links and a pose prior from unlabelled images of one category: DATA is a folder, or a
published data set such as human36m:ROOT, whose published options then take the place of the defaults below.
PPL and AutoLink have extensions for learning without pretrained features, extended-ppl and extended-autolink: whatever
--help-all marks "not in the paper". To give such an option is enough to choose the extension.
Each option has a short name, as --num-keypoints, and one with its section, as --model.num_keypoints. A YAML file given
by --config holds the same names: the sections 'model' and 'train', and 'data' for the folder; options on the command
line win. A run's own config.yaml is such a file.
The same command again with --resume goes on from the newest checkpoint, or begins where there is none yet.
Several processes, on GPUs or on the CPU: torchrun --nproc_per_node 2 -m ppl_fast.cli train ..."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    import yaml

    files, named, arguments = _take_configs(_without_auto(arguments))
    read = [read_config(path) for path in files]
    names = [named, *(config.get("architecture") for config in read)]
    architecture = next((name for name in names if name in CONFIGS), "ppl")
    if (wide := extension(architecture)) in names:
        architecture = wide
    read = [check_options(path, config, architecture) for path, config in zip(files, read, strict=True)]

    usage = "DATA --out RUN [--architecture NAME] [--config FILE] [--resume] [options]"
    parser = command_parser("train", DESCRIPTION, usage)
    parser.add_argument("data", nargs="?", type=str, help="folder of images, or NAME:ROOT")
    parser.add_argument("--out", type=str, required=True, metavar="RUN", help="run directory: new, or to resume")
    parser.add_argument("--config", action="config", help="YAML file of options")
    parser.add_argument(
        "--resume", action="store_true", help="continue RUN, with the options in its config.yaml; begin where it is new"
    )
    parser.add_argument(
        "--architecture", type=Literal[tuple(CONFIGS)], default="ppl", help="what to train; also --model NAME"
    )
    add_dataclass(parser, "model", CONFIGS[wide])
    add_dataclass(parser, "train", TrainConfig)
    parser.set_defaults({f"train.{name}": value for name, value in CONFIGS[architecture].train_defaults.items()})
    asked = architecture if named in (None, *CONFIGS) else named  # a wrong name is the parser's to report
    arguments = [f"--architecture={asked}", *(f"--config={yaml.safe_dump(config)}" for config in read), *arguments]
    first = parse(parser, arguments)
    given = [first.data, *(config.get("data") for config in reversed(read))]
    data = next((spec for spec in given if spec is not None), None)
    if data is None and first.resume:
        raise ValueError(f"train: cannot resume {first.out}: it is no run directory, which would hold a config.yaml")
    if data is None:
        raise ValueError("train: no images given: expected the argument DATA, or the key data in a config file")
    data = meant(data)  # a config file holds text, and names need not be any
    preset = _set_preset(parser, data, architecture)
    options = parse(parser, arguments)
    used = {name.partition(".")[2]: value for name, value in preset.items() if options[name] == value}
    if used:
        print(f"published options for {data}: " + ", ".join(f"{name} {value}" for name, value in used.items()))

    import torch

    from ppl_fast.training import train

    settings = options.model.as_dict(), TrainConfig(**options.train.as_dict())
    train(*settings, data, options.out, resume=options.resume, architecture=options.architecture)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def _set_preset(parser: ArgumentParser, data: str, architecture: str) -> dict[str, Any]:
    """Make a published data set's hyperparameters the defaults, and return them; none for a folder."""
    from ppl_fast.data.sets import known_name

    preset = preset_of(architecture, known_name(data))
    defaults = {f"{section}.{option}": value for section in preset for option, value in preset[section].items()}
    parser.set_defaults(defaults)
    return defaults


def _without_auto(arguments: list[str]) -> list[str]:
    """`--resume auto` and `--resume=auto` as `--resume`, which means the same."""
    kept = ["--resume" if argument == "--resume=auto" else argument for argument in arguments]
    return [word for i, word in enumerate(kept) if word != "auto" or kept[max(i - 1, 0)] != "--resume"]


def _take_configs(arguments: list[str]) -> tuple[list[Path], str | None, list[str]]:
    """Config files in the order they are read, that of the run to resume first; the architecture; other arguments.

    The architecture decides what options there are. The parser reads a file where it stands among the options; the
    files are to come first wherever they stand.
    """
    known, rest = Namespace(config=[], out=None, resume=False, architecture=None), arguments
    finder, peeker = (PlainParser(add_help=False, allow_abbrev=False, exit_on_error=False) for _ in range(2))
    finder.add_argument("--config", action="append", type=Path)
    finder.add_argument("--model", "--architecture", dest="architecture")  # the parser would confuse it with --model.*
    peeker.add_argument("--out", type=Path)
    peeker.add_argument("--resume", action="store_true")
    with contextlib.suppress(ArgumentError):  # the full parser reports it
        _, rest = finder.parse_known_args(arguments, known)
        peeker.parse_known_args(rest, known)
    own = known.out / "config.yaml" if known.resume and known.out else None
    return ([own] if own and own.is_file() else []) + known.config, known.architecture, rest
