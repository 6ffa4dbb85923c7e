"""Independent work in several processes, which share the threads: small networks learn fastest with one each."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
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
    results, workers = {}, {}
    # As bytes: torch would put tensors into shared memory, of which containers have little.
    given = pickle.dumps((work, shared, calls, max(1, torch.get_num_threads() // processes), advanced is not None))
    try:
        for first in range(processes):
            here, worker = _begun(given, range(first, len(calls), processes))
            workers[here] = worker
        while workers:
            ready = wait(list(workers))
            for connection in [each for each in workers if each in ready]:
                said = _heard(connection)
                if said is None and advanced is not None:
                    advanced()
                elif isinstance(said, dict):
                    results.update(said)
                if said is _ENDED:
                    _check_end(workers.pop(connection))
    finally:
        for worker in workers.values():
            _end(worker)
    return [results[number] for number in range(len(calls))]


@contextmanager
def meanwhile(work: Callable[..., object], *arguments: Any) -> Iterator[None]:
    """`work(*arguments)` in a process of its own, with half of the threads during the block, and awaited behind it.

    Left by an error, the block ends the process, by SIGTERM.

    Raises:
        RuntimeError, and what `work` raises: as `side_by_side` does, behind the block.
    """
    threads = torch.get_num_threads()
    here, worker = _begun(pickle.dumps((work, (), (arguments,), max(1, threads // 2), False)), (0,))
    torch.set_num_threads(max(1, threads - threads // 2))
    try:
        yield
        while _heard(here) is not _ENDED:
            pass
        _check_end(worker)
    finally:
        torch.set_num_threads(threads)
        _end(worker)


def _begun(given: bytes, numbers: Sequence[int]) -> tuple[Connection, BaseProcess]:
    """A process at work on the calls of these numbers, and what it says."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(given, numbers, there), daemon=True)
    worker.start()
    there.close()
    return here, worker


def _end(worker: BaseProcess) -> None:
    worker.terminate()
    worker.join()


def _check_end(worker: BaseProcess) -> None:
    """Of a process that says nothing more."""
    worker.join()
    if worker.exitcode:
        raise RuntimeError(f"a process at work ended early, with exit code {worker.exitcode}")


_ENDED = object()


def _heard(connection: Connection) -> Any:
    """What our own process said: None as it goes, or {number: result}; `_ENDED` if it says nothing more.

    An error that it said is raised.
    """
    try:
        said = pickle.loads(connection.recv_bytes())
    except (EOFError, OSError):  # the latter in the middle of a word
        return _ENDED
    if isinstance(said, BaseException):
        raise said
    return said


def _work(given: bytes, numbers: Sequence[int], there: Connection) -> None:
    """The calls of these numbers, in a process of their own."""
    # Who began this ends it, by SIGTERM. Blocked, not ignored: work that has a handler of its own would set that.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def say(what: Any) -> None:
        there.send_bytes(pickle.dumps(what))

    try:
        work, shared, calls, threads, told = pickle.loads(given)
        torch.set_num_threads(threads)
        more = {"advanced": lambda: say(None)} if told else {}
        for number in numbers:
            say({number: work(*shared, *calls[number], **more)})
    except (Exception, KeyboardInterrupt) as error:  # the latter of training, which SIGTERM ends
        say(error)
