"""Models, runs and config files of before.

From when PPL and AutoLink had the options of their extensions themselves: they name the plain architecture and may hold
any of those options. The rule for all of them, and for the command line: the extension is taken where one of its
options differs from the default; else those options are left out. From when TensorBoard was the one tracker, and memory
the one cache: options of the loop say yes or no to them. From when the perceptual loss alone could be computed again:
an option says yes or no to that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ppl_fast._options import YAML_WORDS
from ppl_fast.options.registry import CONFIGS

EXTENSIONS = {"ppl": "extended-ppl", "autolink": "extended-autolink"}


def extension(architecture: str) -> str:
    """The architecture that extends this one, or itself where none does."""
    return EXTENSIONS.get(architecture, architecture)


def resolve(architecture: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The architecture that options given under this name are of, and those that it has.

    Args:
        architecture: a key of `CONFIGS`; any other passes through.
        options: of its configuration or its extension's; unknown ones pass through, for the model to name.
    """
    options = renamed(options)
    if architecture not in CONFIGS:
        return architecture, options
    wide = extension(architecture)
    plain = {item.name for item in fields(CONFIGS[architecture])}
    further = {item.name: item.default for item in fields(CONFIGS[wide]) if item.name not in plain}
    if any(options[name] != default for name, default in further.items() if name in options):
        return wide, options
    return architecture, {name: value for name, value in options.items() if name not in further}


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a model as they are called now: `recompute` takes the place of `perceptual_recompute`."""
    named = dict(options)
    if "perceptual_recompute" in named:
        said = named.pop("perceptual_recompute")
        named.setdefault("recompute", "layers" if YAML_WORDS.get(str(said).lower(), said) else "nothing")
    return named


def loop(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a training loop as they are called now.

    `tracker` takes the place of `tensorboard`, which was true or false; `cache: true` is memory, and its false is what
    YAML makes of no; `cuda_graph` was true or false, and takes all words for these.
    """
    named = dict(options)
    if "tensorboard" in named and "tracker" not in named:
        written = named.pop("tensorboard")
        named["tracker"] = "tensorboard" if YAML_WORDS.get(str(written).lower(), written) else "none"
    if isinstance(named.get("cache"), bool):
        named["cache"] = "memory" if named["cache"] else "no"
    if "cuda_graph" in named:
        said = YAML_WORDS.get(str(named["cuda_graph"]).lower(), named["cuda_graph"])
        named["cuda_graph"] = str(said).lower() if isinstance(said, bool) else said
    return named


def words(arguments: Sequence[str]) -> list[str]:
    """Words of the command line as they are called now: --tensorboard true or false is --tracker."""
    found: list[str] = []
    given = iter(arguments)
    for word in given:
        name, equal, value = word.partition("=")
        if name not in ("--tensorboard", "--train.tensorboard"):
            found.append(word)
            continue
        value = value if equal else next(given, "true")
        found.append(f"--tracker={loop({'tensorboard': value})['tracker']}")
    return found
