"""Training batches: order, flips and references are a function of (seed, step) and of nothing else."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ppl_fast.data import loading, training_loader


class Numbered(torch.utils.data.Dataset):
    """Image i is filled with i; its left column is marked, so that a flip shows."""

    def __init__(self, length, clips=None):
        self.length, self.clips = length, clips

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        image = torch.full((3, 4, 4), float(index))
        image[..., 0] = -1
        return image


def steps(count, length=10, batch_size=4, seed=0, **options) -> torch.Tensor:
    """(count, batch, 3, 4, 4)."""
    return torch.stack(list(islice(training_loader(Numbered(length), batch_size, seed, **options), count)))


CLIPS = [0, 0, 0, 1, 2, 2, 0, 3, 3, 3]  # the first goes on after the third; the second is one frame


def pairs(count, clips=CLIPS, batch_size=4, seed=0, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and references, each (count, batch, 3, 4, 4)."""
    loader = training_loader(Numbered(len(clips), clips), batch_size, seed, reference="video", **options)
    return tuple(torch.stack(parts) for parts in zip(*islice(loader, count), strict=True))


def order(batches) -> list[int]:
    return batches[..., 0, 0, 1].flatten().int().tolist()


def flipped(batches) -> torch.Tensor:
    return batches[..., 0, 0, -1].flatten() == -1


def test_resumed_run_continues_bit_for_bit():
    straight = steps(12)
    for start in (1, 2, 7):
        assert torch.equal(steps(12 - start, start_step=start), straight[start:])


def test_every_image_once_an_epoch_in_a_new_order():
    seen = order(steps(15, batch_size=2))
    epochs = [seen[i : i + 10] for i in range(0, 30, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order(steps(5, batch_size=2, seed=1)) != epochs[0]


def test_nothing_is_dropped_where_batches_straddle_epochs():
    assert sorted(order(steps(5))) == sorted(list(range(10)) * 2)


def test_folder_smaller_than_a_batch():
    assert sorted(order(steps(1, length=3, batch_size=6))) == [0, 0, 1, 1, 2, 2]


def test_flips():
    share = flipped(steps(100, length=50, batch_size=10)).float().mean()
    assert 0.4 < share < 0.6  # 1,000 draws: six standard deviations
    assert not flipped(steps(20, flip=False)).any()
    both = steps(40, length=4)
    first = [[bool(f) for i, f in zip(order(both), flipped(both), strict=True) if i == n] for n in range(4)]
    assert all(len(set(flips)) == 2 for flips in first)  # anew every epoch


def test_workers_and_global_generator_change_nothing():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    alone = steps(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(steps(4, workers=2), alone)


def test_ranks_share_each_batch():
    whole = steps(5)
    parts = [steps(5, rank=rank, world_size=2) for rank in (0, 1)]
    assert parts[0].shape[1] == 2
    for step in range(5):
        assert sorted(order(whole[step])) == sorted(order(parts[0][step]) + order(parts[1][step]))


def test_order_and_flips_are_pinned():
    """A run that is resumed with a later release must go on as it began."""
    batches = steps(3)
    assert order(batches) == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1, 9, 1]
    assert flipped(batches).int().tolist() == [0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 1]


def test_references_are_other_frames_of_the_same_clip():
    images, references = pairs(50)
    drawn = list(zip(order(images), order(references), strict=True))
    assert torch.equal(images, steps(50))  # images, their order and flips are those without references
    assert torch.equal(flipped(images), flipped(references)) and flipped(images).any()
    for frame, reference in drawn:
        assert CLIPS[frame] == CLIPS[reference] and (frame != reference or frame == 3)
    # Every possible pair comes up; 20 epochs leave one of the three partners of a frame out with a chance of 3e-4.
    possible = {(i, j) for i in range(10) for j in range(10) if CLIPS[i] == CLIPS[j] and (i != j or i == 3)}
    assert set(drawn) == possible


def test_references_repeat_when_resumed_and_with_workers_and_ranks():
    straight = pairs(12)
    for other in (pairs(5, start_step=7), pairs(5, start_step=7, workers=2)):
        assert all(torch.equal(part, whole[7:]) for part, whole in zip(other, straight, strict=True))
    parts = [pairs(12, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(12):
        shared = [pair for part in parts for pair in zip(*map(order, (part[0][step], part[1][step])), strict=True)]
        assert sorted(shared) == sorted(zip(*map(order, (straight[0][step], straight[1][step])), strict=True))
    assert order(pairs(12, seed=1)[1]) != order(straight[1])


def test_references_need_clips():
    with pytest.raises(ValueError, match="reference video needs frames of clips .* got a Numbered without clips"):
        steps(1, reference="video")
    with pytest.raises(ValueError, match="reference must be image or video, got 'clip'"):
        steps(1, reference="clip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "at least one image"),
        ({"batch_size": 0}, "batch_size must be a positive multiple"),
        ({"batch_size": 3, "world_size": 2}, "multiple of the 2 processes, got 3"),
        ({"seed": -1}, "must not be negative"),
        ({"start_step": -1}, "must not be negative"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        steps(1, **arguments)


HEED = loading._heed_the_parent_alone


def heed_late(worker):
    time.sleep(float(os.environ["LATE"]))
    HEED(worker)


TERMINATED = """
import multiprocessing, sys, time
sys.path.insert(0, {here!r})
import test_data_loading as here
from ppl_fast.training.signals import StopSignals
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    here.loading._heed_the_parent_alone = here.heed_late
    batches = iter(here.training_loader(here.Numbered(10), 4, 0, workers=2))
    with StopSignals() as stop:
        if not {late}:
            next(batches)
        print("ready", flush=True)
        while not stop.received:
            time.sleep(0.01)
        for _ in range(20):  # more than were under way
            next(batches)
    print(stop.received)
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="nothing tells here whom a signal comes from")
@pytest.mark.parametrize(
    ("method", "number", "late"),
    [
        *(("fork", number, late) for number in (signal.SIGTERM, signal.SIGINT) for late in (0, 1)),
        ("spawn", signal.SIGINT, 1),  # a process that begins anew has threads that take a SIGTERM
    ],
)
def test_a_signal_to_all_processes_leaves_those_that_load_at_work(method, number, late):
    """As `timeout` and a terminal send it: the step is finished, and needs images. They may have just begun."""
    script = TERMINATED.format(here=str(Path(__file__).parent), method=method, late=late)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"LATE": str(late)},
    ) as run:
        assert run.stdout.readline() == "ready\n"
        os.killpg(run.pid, number)
        assert run.communicate(timeout=60)[0] == f"{number.name}\n" and run.returncode == 0


def test_numbers_of_numpy():
    plain = steps(3, seed=5, start_step=1)
    options = {"seed": np.int64(5), "start_step": np.int32(1), "workers": np.int64(0)}
    assert torch.equal(steps(3, batch_size=np.int64(4), **options), plain)
