"""Independent work in several processes, which share the threads: small networks learn fastest with one each."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def side_by_side(
    work: Callable[..., T],
    shared: tuple[Any, ...],
    calls: Sequence[tuple[Any, ...]],
    processes: int,
    advanced: Callable[[], object] | None = None,
) -> list[T]:
    """`work(*shared, *call)` for each of the calls, in their order; on the first error all end.

    More than one process are spawned: the program is guarded by `if __name__ == "__main__":`, and work, arguments and
    results can be pickled. One process is this one.

    Args:
        work: of the top level of a module; takes a keyword `advanced`, to be called as it goes, if that is given here.
        shared: arguments of all calls.
        calls: further arguments.
        processes: at most so many at a time.
        advanced: called in this process for each of those calls.

    Raises:
        RuntimeError: a process ended before its work was done. What `work` raises, it raises too.
    """
    if (processes := min(processes, len(calls))) <= 1:
        more = {} if advanced is None else {"advanced": advanced}
        return [work(*shared, *call, **more) for call in calls]
    context, results, workers = get_context("spawn"), {}, {}
    # As bytes: torch would put tensors into shared memory, of which containers have little.
    given = pickle.dumps((work, shared, calls, max(1, torch.get_num_threads() // processes), advanced is not None))
    try:
        for first in range(processes):
            here, there = context.Pipe(duplex=False)
            numbers = range(first, len(calls), processes)
            workers[here] = context.Process(target=_work, args=(given, numbers, there), daemon=True)
            workers[here].start()
            there.close()
        while workers:
            ready = wait(list(workers))
            for connection in [each for each in workers if each in ready]:
                said = _heard(connection)
                if isinstance(said, BaseException):
                    raise said
                if said is None and advanced is not None:
                    advanced()
                elif isinstance(said, dict):
                    results.update(said)
                if said is _ENDED:
                    ended = workers.pop(connection)
                    ended.join()
                    if ended.exitcode:
                        raise RuntimeError(f"a process at work ended early, with exit code {ended.exitcode}")
    finally:
        for worker in workers.values():
            worker.terminate()
            worker.join()
    return [results[number] for number in range(len(calls))]


_ENDED = object()


def _heard(connection: Connection) -> Any:
    """What our own process said: None as it goes, {number: result}, or an error; `_ENDED` if it says nothing more."""
    try:
        return pickle.loads(connection.recv_bytes())
    except (EOFError, OSError):  # the latter in the middle of a word
        return _ENDED


def _work(given: bytes, numbers: Sequence[int], there: Connection) -> None:
    """The calls of these numbers, in a process of their own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who began this ends it

    def say(what: Any) -> None:
        there.send_bytes(pickle.dumps(what))

    try:
        work, shared, calls, threads, told = pickle.loads(given)
        torch.set_num_threads(threads)
        more = {"advanced": lambda: say(None)} if told else {}
        for number in numbers:
            say({number: work(*shared, *calls[number], **more)})
    except Exception as error:
        say(error)
