"""Ending a run by SIGINT (Ctrl-C) or SIGTERM after the step in progress."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

PASSED_ON = 5.0  # seconds within which a launcher passes on the signal that its processes got already

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal and left a checkpoint; the message says how to resume."""


class StopSignals:
    """Context in which the first SIGINT or SIGTERM only sets `received`; the second acts as it would outside.

    Outside of the main thread, where Python takes no signals, the context does nothing.

    Args:
        launched: whether a launcher may pass on what a terminal sends to all; for a while, the second is the first one.
    """

    def __init__(self, launched: bool = False) -> None:
        self.received = ""
        self._launched, self._since = launched, 0.0
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
        if not self.received:
            self.received, self._since = signal.Signals(number).name, time.monotonic()
        if not self._launched:
            self.__exit__()
        elif time.monotonic() - self._since > PASSED_ON:
            self.__exit__()
            signal.raise_signal(number)
