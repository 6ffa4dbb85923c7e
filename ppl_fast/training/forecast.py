"""How long a training will take, said as soon as a few steps can tell."""

import time

STEPS, SECONDS = 10, 20.0  # after which it is said, whichever comes first


class Forecast:
    """Watches steps; the first, which warms everything up, does not count."""

    def __init__(self) -> None:
        self._steps, self._begun, self._said = -1, 0.0, False

    def after_step(self, left: int) -> str | None:
        """A sentence, once; None after all other steps.

        Args:
            left: steps that remain.
        """
        now, self._steps = time.perf_counter(), self._steps + 1
        if not self._steps:
            self._begun = now
        elapsed = now - self._begun
        if self._said or not left or not self._steps or (self._steps < STEPS and elapsed < SECONDS):
            return None
        self._said, each = True, elapsed / self._steps
        return f"on this CPU a step takes {spelled(each)}: about {spelled(each * left)} for the {left} steps left"


def spelled(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} seconds" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
