"""Whether steps take far longer than they did, as they do where another process takes the machine."""

from collections import deque
from statistics import median

FACTOR, LONG = 5, 10.0  # times the median, for seconds
KNOWN, KEPT = 3, 100  # stretches that a median is taken of, at least and at most


class Pace:
    """Hears how long each stretch of steps took, and says once when steps have become slow for long."""

    def __init__(self) -> None:
        self._usual: deque[float] = deque(maxlen=KEPT)  # seconds a step; slow stretches are not among them
        self._slow = 0.0  # seconds since steps became slow

    def note(self, steps: int, seconds: float) -> str | None:
        """What to print after a stretch of steps, if anything: again only after steps have been as before."""
        each = seconds / steps
        usual = median(self._usual) if len(self._usual) >= KNOWN else each
        if each < FACTOR * usual or not usual:
            self._usual.append(each)
            self._slow = 0.0
            return None
        before, self._slow = self._slow, self._slow + seconds
        if not before < LONG <= self._slow:
            return None
        return (
            f"note: a step has taken {each:.2g} s for {self._slow:.0f} s, where the median is {usual:.2g} s: another "
            "process may be using the machine (on a CPU, a smaller --threads then loses less)"
        )
