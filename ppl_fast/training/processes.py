"""Several processes that train as one: what they must agree on, who reads the images, and what is said of a lost one.

torchrun starts them, accelerate and torch.distributed let them work together. Alone, a process does nothing here.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator

from ppl_fast.training.checkpoint import newest

Result = TypeVar("Result")
# What gloo and NCCL say of a process that is gone, and of one that is silent.
GONE = re.compile(r"(connection|socket) (was )?(closed|reset)|broken pipe|remote process exited", re.IGNORECASE)
SILENT = re.compile(r"timed? ?out", re.IGNORECASE)
ADVICE = {
    "step": "; every machine needs the run's directory to resume: share it, or copy it",
    "images": "; every machine needs the same images under the same names",
}

ATTEMPT = "TORCHELASTIC_RESTART_COUNT"  # set by torchrun: how often it has started all anew


def meeting() -> str | None:
    """Where processes that torchrun has started anew find each other, for `init_process_group`; None: the usual place.

    On one machine, torchrun keeps its store over a restart, unless its rendezvous is c10d. There each process would
    look for the others at the addresses of those that are gone, so every attempt has a part of its own. On several
    machines each counts its own restarts, and c10d, which they need to restart, makes a new store.
    """
    anew, alone = os.environ.get(ATTEMPT, "0") != "0", os.environ.get("GROUP_WORLD_SIZE") == "1"
    return f"{_scheme()}://" if anew and alone else None


@cache
def _scheme() -> str:
    """The name under which torch.distributed knows `_apart`."""
    from torch.distributed.rendezvous import register_rendezvous_handler

    register_rendezvous_handler("ppl-fast", _apart)
    return "ppl-fast"


def _apart(_url: str, **options: Any) -> Iterator[tuple[Any, int, int]]:
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    for store, rank, size in rendezvous("env://", **options):
        yield PrefixStore(f"attempt {os.environ[ATTEMPT]}", store), rank, size


def several() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def from_all(value: Any) -> list[Any]:
    """What each process gives, in their order; it must be picklable."""
    if not several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def check_alike(facts: dict[str, Any]) -> None:
    """Raise a ValueError, in every process, that names the first fact in which another process differs from the first.

    Args:
        facts: by name; the same names in every process.
    """
    first, *others = from_all(facts)
    for name, value in first.items():
        for number, other in enumerate(others, 1):
            if other[name] != value:
                raise ValueError(
                    f"train: the processes must hold the same {name}, but process 0 has {value!r} and process {number} "
                    f"{other[name]!r}{ADVICE.get(name, '')}"
                )


def once_a_machine(work: Callable[[], Result], accelerator: Accelerator, timeout: int) -> Result:
    """What `work` gives, done by the first process of each machine and sent to its others, as copies of their own.

    Args:
        work: what gives something that can be pickled.
        accelerator: which knows the machine's processes.
        timeout: seconds that they wait for it.

    Raises:
        Exception: what `work` raised, in all processes of the machine.
    """
    if not several():
        return work()
    reader = accelerator.process_index - accelerator.local_process_index
    readers = from_all(reader)
    members = {each: [rank for rank, its in enumerate(readers) if its == each] for each in readers}
    # Over gloo, which sends what lies in memory; every process takes part in making every group.
    wait = timedelta(seconds=timeout)
    machines = {each: dist.new_group(ranks, wait, backend="gloo") for each, ranks in members.items()}
    found: list[Any] = [None, None]
    if accelerator.is_local_main_process:
        try:
            found[0] = work()
        except Exception as error:
            found[1] = error
    dist.broadcast_object_list(found, src=reader, group=machines[reader])
    if found[1] is not None:
        raise found[1]
    result: Result = found[0]
    return result


def anywhere(flag: bool, accelerator: Accelerator) -> bool:
    """Whether the flag is set in any process: all must stop after the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum"))


@contextmanager
def noticing_loss(timeout: int, run: Path) -> Iterator[None]:
    """Say in a sentence that another process is gone or silent, and how to go on; the libraries say it in their words.

    Args:
        timeout: seconds that the processes wait for each other.
        run: the run's directory.

    Raises:
        ConnectionError: so it is.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if not several() or not (SILENT.search(said) or GONE.search(said)):
            raise
        what = f"did not answer for {timeout} s" if SILENT.search(said) else "ended"
        raise ConnectionError(f"training stopped: another of its processes {what}; {newest(run)}") from error
