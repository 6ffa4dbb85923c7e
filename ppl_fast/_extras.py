"""Optional packages: one sentence where one is missing, and public names that are imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

NAMES = {"PIL": "Pillow", "yaml": "PyYAML", "pillow_heif": "pillow-heif"}  # names that packages are installed by


def missing(package: str, who: str, extra: str, otherwise: str = "") -> ImportError:
    """The error that says what needs a package, and the extra that brings it.

    Args:
        package: as it is imported.
        who: what needs it, with its verb: "charts need".
        extra: of ppl_fast.
        otherwise: how to do without, if there is a way.
    """
    name = NAMES.get(package, package)
    remedy = f"pip install 'ppl_fast[{extra}]'" + (f", or {otherwise}" if otherwise else "")
    return ImportError(f"{who} {name}, which is not installed: {remedy}", name=package)


@contextmanager
def needing(who: str, extra: str, otherwise: str = "") -> Iterator[None]:
    """Within the block, a package that is not installed is named by `missing`; arguments as there.

    A package of our own, or one that is installed and broken, keeps its own error.

    Raises:
        ImportError: a package that the block imports is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "ppl_fast"):
            raise
        raise missing(package, who, extra, otherwise) from error


def on_first_use(package: str, homes: Mapping[str, str], extra: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose public names are imported when they are first used.

    What needs an extra is then named only where it is needed.

    Args:
        package: its `__name__`.
        homes: public name to the module within the package that it lives in.
        extra: that these modules need.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needing(f"{package}.{name} needs", extra):
            return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
