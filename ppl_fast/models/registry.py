"""The architectures by name: what `architecture` is on the command line, in configuration files and in config.json."""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING, TypeVar

from ppl_fast.options.registry import CONFIGS

if TYPE_CHECKING:
    from ppl_fast.models.base import KeypointModel

Model = TypeVar("Model", bound="KeypointModel")


class Models(UserDict[str, "type[KeypointModel]"]):
    """Classes by architecture. The options of one that joins or leaves do so too: the commands ask for no class."""

    def __setitem__(self, architecture: str, model: type[KeypointModel]) -> None:
        super().__setitem__(architecture, model)
        CONFIGS[architecture] = model.Config

    def __delitem__(self, architecture: str) -> None:
        super().__delitem__(architecture)
        del CONFIGS[architecture]


MODELS = Models()  # `ppl_fast.models` fills it


def find(name: str) -> type[KeypointModel] | None:
    """The model of an architecture, or of a class's name, as config.json had it at first; None where there is none."""
    return MODELS.get(name) or next((model for model in MODELS.values() if model.__name__ == name), None)


def narrower(one: type[Model], other: type[KeypointModel]) -> type[Model] | None:
    """Of a class and one that extends it, the latter; None where neither extends the other."""
    if issubclass(other, one):
        return other
    return one if issubclass(one, other) else None
