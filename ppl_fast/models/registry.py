"""The architectures by name: what `architecture` is on the command line, in configuration files and in config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ppl_fast.models.base import KeypointModel

Model = TypeVar("Model", bound="KeypointModel")

MODELS: dict[str, type[KeypointModel]] = {}  # `ppl_fast.models` fills it


def find(name: str) -> type[KeypointModel] | None:
    """The model of an architecture, or of a class's name, as config.json had it at first; None where there is none."""
    return MODELS.get(name) or next((model for model in MODELS.values() if model.__name__ == name), None)


def narrower(one: type[Model], other: type[KeypointModel]) -> type[Model] | None:
    """Of a class and one that extends it, the latter; None where neither extends the other."""
    if issubclass(other, one):
        return other
    return one if issubclass(one, other) else None


def check(architecture: str, where: str) -> None:
    """Raise a ValueError, which names `where`, unless there is such an architecture."""
    if architecture not in MODELS:
        raise unknown(architecture, where)


def unknown(architecture: object, where: str) -> ValueError:
    """The error that there is no such architecture."""
    return ValueError(f"{where}: architecture must be one of {', '.join(MODELS)}, got {architecture!r}")
