"""ppl-fast train: learn a pose prior from a folder of images."""

from __future__ import annotations

import contextlib
from argparse import ArgumentError, Namespace
from argparse import ArgumentParser as PlainParser
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ppl_fast._files import meant
from ppl_fast._options import metadata_of
from ppl_fast.commands.options import add_dataclass, command_parser, fetch, parse
from ppl_fast.options import CONFIGS
from ppl_fast.options.migration import extension, words
from ppl_fast.training import TrainConfig
from ppl_fast.training.config import check_options, read_config
from ppl_fast.training.presets import NAMES, preset

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

DESCRIPTION = """Learn keypoints, links and a pose prior from unlabelled images of one category: DATA is a folder, or a
published data set such as human36m:ROOT, whose published options then take the place of the defaults below.
A folder may be a project of DeepLabCut or Lightning Pose: its labelled frames and videos are trained on.
DATA may also be shards, .tar as of WebDataset or .parquet: one, a folder or a pattern of them, train-{0000..0099}.tar,
also at an address that fsspec reaches, as s3://bucket/folder.
Without a GPU, or without VGG weights, begin with --preset small.
PPL and AutoLink have extensions for learning without pretrained features, extended-ppl and extended-autolink: whatever
--help-all marks "not in the paper". To give such an option is enough to choose the extension.
Each option has a short name, as --num-keypoints, and one with its section, as --model.num_keypoints. A YAML file given
by --config holds the same names: the sections 'model' and 'train', and 'data' for the folder; options on the command
line win. A run's own config.yaml is such a file.
The same command again with --resume goes on from the newest checkpoint, or begins where there is none yet.
Several processes, on GPUs or on the CPU: torchrun --nproc_per_node 2 -m ppl_fast.cli train ..."""

MANY = 12  # options; of more, some are told


def main(arguments: list[str]) -> int:
    """Run the command."""
    import yaml

    files, early, arguments = _take_configs(_without_auto(words(arguments)))
    read = [read_config(path) for path in files]
    start = None if early.start is None else fetch(early.start)
    begun = _options_of(start, early.preset)
    names = [early.architecture, *(config.get("architecture") for config in read), begun["architecture"]]
    architecture = next((name for name in names if name in CONFIGS), "ppl")
    if (wide := extension(architecture)) in names or early.preset == "small":
        architecture = wide
    read = [check_options(path, config, architecture) for path, config in zip(files, read, strict=True)]

    parser = _parser(architecture, begun)
    named = early.architecture
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
    if first["from"]:
        begins = {
            f"train.{name}": value for name, value in begun["train"].items() if value != getattr(TrainConfig, name)
        }
        title = f"options of {first['from']}"
    else:
        begins = _set_preset(parser, first.preset, data, architecture)
        title = f"options of the preset {first.preset}" if first.preset else f"published options for {data}"
    options = parse(parser, arguments)
    used = {name.partition(".")[2]: value for name, value in begins.items() if options[name] == value}
    if used:
        print(f"{title}: {_told(used, extension(architecture))}")

    import torch

    from ppl_fast.cli import EXIT_INTERRUPTED
    from ppl_fast.training import TrainingInterrupted, train

    kinds = {"resume": options.resume, "architecture": options.architecture, "start": start}
    stopped = False
    try:
        train(options.model.as_dict(), TrainConfig(**options.train.as_dict()), data, options.out, **kinds)
    except TrainingInterrupted:
        stopped = True
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            raise  # for all, which stop together
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return EXIT_INTERRUPTED if stopped else 0


def _told(used: dict[str, Any], architecture: str) -> str:
    """Options and their values as text; of many, those of every day."""
    options = (*fields(CONFIGS[architecture]), *fields(TrainConfig))
    everyday = {item.name for item in options if metadata_of(item)["everyday"]} & {*used}
    many = len(used) > MANY and everyday
    told = ", ".join(f"{name} {value}" for name, value in used.items() if not many or name in everyday)
    return f"{told}, and {len(used) - len(everyday)} that config.yaml in the run has, too" if many else told


def _parser(architecture: str, begun: dict[str, Any]) -> ArgumentParser:
    """The parser of an architecture, with the options of a model to begin with as defaults."""
    usage = "DATA --out RUN [--architecture NAME] [--preset NAME] [--config FILE] [--resume] [options]"
    parser = command_parser("train", DESCRIPTION, usage)
    parser.add_argument("data", metavar="DATA", nargs="?", type=str, help="folder of images, shards, or NAME:ROOT")
    parser.add_argument("--out", type=str, required=True, metavar="RUN", help="run directory: new, or to resume")
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file of options")
    parser.add_argument(
        "--resume", action="store_true", help="continue RUN, with the options in its config.yaml; begin where it is new"
    )
    parser.add_argument(
        "--architecture", type=Literal[tuple(CONFIGS)], default="ppl", help="what to train; also --model NAME"
    )
    parser.add_argument(
        "--preset",
        type=Literal[NAMES],
        default=None,
        help="small: the demo's model, which learns from pixels in minutes on a CPU; published: the published options "
        "of DATA; or a data set whose published options to take",
    )
    parser.add_argument(
        "--from",
        type=str | None,
        default=None,
        metavar="RUN",
        help="run, checkpoint or saved model, or one on the hub, whose options and weights to begin with, also with "
        "--num-keypoints of another number; what is new is said. It learns on as the run learned",
    )
    wide = CONFIGS[extension(architecture)]
    add_dataclass(parser, "model", wide)
    add_dataclass(parser, "train", TrainConfig)
    parser.set_defaults({f"train.{name}": value for name, value in CONFIGS[architecture].train_defaults.items()})
    known = {item.name for item in fields(wide)}
    parser.set_defaults({f"model.{name}": value for name, value in begun["model"].items() if name in known})
    parser.set_defaults({f"train.{name}": value for name, value in begun["train"].items()})
    return parser


def _set_preset(parser: ArgumentParser, name: str | None, data: str, architecture: str) -> dict[str, Any]:
    """Make the options of a preset, or those published for a data set, the defaults; gives them."""
    from ppl_fast.data.sets import known_name

    found = preset(name, architecture, known_name(data))
    defaults = {f"{section}.{option}": value for section in found for option, value in found[section].items()}
    parser.set_defaults(defaults)
    return defaults


def _options_of(start: str | None, named: str | None) -> dict[str, Any]:
    """What a trained model to begin with brings: its architecture, and options of model and training."""
    if start is None:
        return {"architecture": None, "model": {}, "train": {}}
    if named is not None:
        raise ValueError(f"--from brings the options of {start}; leave out --preset {named}")
    from ppl_fast.training.warm_start import options_of

    return dict(zip(("architecture", "model", "train"), options_of(start), strict=True))


def _without_auto(arguments: list[str]) -> list[str]:
    """`--resume auto` and `--resume=auto` as `--resume`, which means the same."""
    kept = ["--resume" if argument == "--resume=auto" else argument for argument in arguments]
    return [word for i, word in enumerate(kept) if word != "auto" or kept[max(i - 1, 0)] != "--resume"]


def _take_configs(arguments: list[str]) -> tuple[list[Path], Namespace, list[str]]:
    """Config files in the order they are read, that of the run to resume first; early options; other arguments.

    The architecture, a preset and a model to begin with decide what options there are. The parser reads a file where it
    stands among the options; the files are to come first wherever they stand.
    """
    known, rest = Namespace(config=[], out=None, resume=False, architecture=None, preset=None, start=None), arguments
    finder, peeker = (PlainParser(add_help=False, allow_abbrev=False, exit_on_error=False) for _ in range(2))
    finder.add_argument("--config", action="append", type=Path)
    finder.add_argument("--model", "--architecture", dest="architecture")  # the parser would confuse it with --model.*
    peeker.add_argument("--out", type=Path)
    peeker.add_argument("--resume", action="store_true")
    peeker.add_argument("--preset")
    peeker.add_argument("--from", dest="start")
    with contextlib.suppress(ArgumentError):  # the full parser reports it
        _, rest = finder.parse_known_args(arguments, known)
        peeker.parse_known_args(rest, known)
    own = known.out / "config.yaml" if known.resume and known.out else None
    return ([own] if own and own.is_file() else []) + known.config, known, rest
