"""The options of every architecture, by the name that command line, configuration files and config.json have for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppl_fast.options.config import KeypointConfig

CONFIGS: dict[str, type[KeypointConfig]] = {}  # `ppl_fast.options` fills it; a model that joins `MODELS` adds its own


def check(architecture: str, where: str) -> None:
    """Raise a ValueError, which names `where`, unless there is such an architecture."""
    if architecture not in CONFIGS:
        raise unknown(architecture, where)


def unknown(architecture: object, where: str) -> ValueError:
    """The error that there is no such architecture."""
    return ValueError(f"{where}: architecture must be one of {', '.join(CONFIGS)}, got {architecture!r}")
