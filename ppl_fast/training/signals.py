"""Ending a run by SIGINT (Ctrl-C) or SIGTERM after the step in progress."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal and left a checkpoint; the message says how to resume."""


class StopSignals:
    """Context in which the first SIGINT or SIGTERM only sets `received`; the second acts as it would outside.

    Outside of the main thread, where Python takes no signals, the context does nothing.
    """

    def __init__(self) -> None:
        self.received = ""
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self.__exit__()
