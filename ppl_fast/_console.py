"""Printing to consoles as they are: of any encoding, gone, or never there; and warnings as sentences."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

from ppl_fast._files import lead_nowhere, readable

GONE = (errno.EPIPE, errno.EIO)  # a pipe that nobody reads any more, a terminal that was closed


def say(text: str) -> None:
    """Print a line, with escapes for what the console's encoding does not have; nothing where there is no console."""
    if sys.stdout is not None:
        with _above_bars(sys.stdout):
            _Lasting(sys.stdout).write(f"{text}\n")


def _above_bars(stream: TextIO) -> AbstractContextManager[Any]:
    """Progress bars are taken off the console within the block and drawn anew below; tqdm is not imported for it."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return nullcontext() if bars is None else bars.external_write_mode(stream)


def no_bar() -> bool | None:
    """What tqdm takes as `disable`: True where there is no standard error, None to look for a terminal there."""
    return True if sys.stderr is None else None


def between_bars() -> float:
    """What tqdm takes as `mininterval`, in seconds: a file keeps all states of a bar, of which a terminal shows one."""
    return 0.1 if sys.stderr is not None and sys.stderr.isatty() else 30.0


class _Lasting:
    """A stream whose text no encoding stops, and whose loss stops no work: what nobody reads is dropped."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """As of any stream; gives the length of the text."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with self._dropping():
            self._stream.write(readable(text).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """As of any stream."""
        with self._dropping():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in GONE:
                error.filename = error.filename or "the output"  # a disk may be full where many files are written
                raise
            # What is still in the stream's buffer goes there too, when Python ends.
            lead_nowhere(self._stream.fileno())


@contextmanager
def lasting() -> Iterator[None]:
    """Standard output and error as `_Lasting` streams within the block, also where there are none (pythonw, `>&-`)."""
    with ExitStack() as whole:
        for name, redirected in (("stdout", redirect_stdout), ("stderr", redirect_stderr)):
            stream = getattr(sys, name)
            if stream is None:
                stream = whole.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            kept = _Lasting(stream)
            whole.callback(kept.flush)
            whole.enter_context(redirected(cast(TextIO, kept)))
        yield


@contextmanager
def sentences(prefix: str) -> Iterator[None]:
    """Warnings within the block as one line each on standard error, every text once; those of our own and others'."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = " ".join(str(message).split())
        if text not in told:
            told.add(text)
            with _above_bars(sys.stderr):
                print(f"{prefix}{text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
