"""Several runs at a time, of one thread each, for GPUs that many small models share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def side_by_side(work: Callable[..., T], calls: Iterable[tuple[Any, ...]], jobs: int) -> list[T]:
    """What `work` returns for each of the calls' arguments, in their order; of one job, in this very process."""
    if jobs == 1:
        return [work(*each) for each in calls]
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return [done.result() for done in [pool.submit(work, *each) for each in calls]]
