"""Work in threads beside the caller's: what it takes is made ahead of it, what it gives is taken off its hands.

Decoders, encoders and files let other Python threads run, so one interpreter keeps all of them busy. How far either
side is ahead is bounded, and with it what is held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass
class Waits:
    """Where the caller's time went.

    Attributes:
        reading: seconds that it waited for what it takes.
        writing: seconds that it waited to be rid of what it gives.
        taking: seconds that one item after the other took, waiting for what it is made of included.
    """

    reading: float = 0.0
    writing: float = 0.0
    taking: float = 0.0

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.taking + self.writing

    def __str__(self) -> str:
        reading, writing = (each / self.total if self.total else 0.0 for each in (self.reading, self.writing))
        return f"of {self.total:.1f} s the model waited {reading:.0%} for images and {writing:.0%} for files"


@contextmanager
def timed(waits: Waits, name: str) -> Iterator[None]:
    """Add the seconds that the block takes to one of `Waits`."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        setattr(waits, name, getattr(waits, name) + time.perf_counter() - begun)


def ahead(items: Iterable[Item], depth: int, waits: Waits) -> Generator[Item, None, None]:
    """The items in order, made by a thread of their own up to `depth` before they are asked for; 0 takes no thread.

    What making one raises is raised where it would have come. When the iterator is closed or forgotten, the thread ends
    with the item that it is at.
    """
    if not depth:
        source = iter(items)
        while True:
            with timed(waits, "reading"):
                item = next(source, waits)  # which is no item
            if item is waits:
                return
            yield item  # type: ignore[misc]
    ready: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    free, ended = Semaphore(depth), [False]
    thread = Thread(target=_make, args=(items, ready, free, ended), daemon=True, name="ppl_fast reads")
    thread.start()
    try:
        while True:
            with timed(waits, "reading"):
                kind, item = ready.get()
            if kind == "error":
                raise item
            if kind == "end":
                return
            yield item
            del item
            free.release()
    finally:
        ended[0] = True
        free.release()
        thread.join()


def _make(items: Iterable[Any], ready: SimpleQueue[tuple[str, Any]], free: Semaphore, ended: list[bool]) -> None:
    source = iter(items)
    try:
        while True:
            free.acquire()
            if ended[0]:
                return
            ready.put(("item", next(source)))
    except StopIteration:
        ready.put(("end", None))
    except BaseException as error:
        ready.put(("error", error))
    finally:
        if hasattr(source, "close"):
            source.close()  # by the thread that ran it


@contextmanager
def behind(take: Callable[[Item], None], depth: int, waits: Waits) -> Iterator[Callable[[Item], None]]:
    """A function that hands items over to a thread, which gives them to `take` in order; 0 takes no thread.

    At most `depth` items are with the thread; the next waits for one of them. All are taken when the block ends well;
    when it raises, those that wait are dropped. What `take` raises is raised by the next call, or at the end.
    """
    if not depth:

        def direct(item: Item) -> None:
            with timed(waits, "writing"):
                take(item)

        yield direct
        return
    given: SimpleQueue[list[Item]] = SimpleQueue()  # each in a list, an empty one is the end
    free, errors = Semaphore(depth), list[BaseException]()

    def work() -> None:
        while item := given.get():
            try:
                if not errors:
                    take(item.pop())
            except BaseException as error:
                errors.append(error)
            item.clear()
            free.release()

    def hand(item: Item) -> None:
        with timed(waits, "writing"):
            free.acquire()
        if errors:
            raise errors[0]
        given.put([item])

    thread = Thread(target=work, daemon=True, name="ppl_fast writes")
    thread.start()
    try:
        yield hand
    except BaseException as error:
        errors.append(error)
        raise
    finally:
        given.put([])
        with timed(waits, "writing"):
            thread.join()
    if errors:
        raise errors[0]
