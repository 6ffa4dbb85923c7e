"""Training batches: order and flips are a function of (seed, step) and of nothing else."""

from itertools import islice

import pytest
import torch

from ppl_fast.data import training_loader


class Numbered(torch.utils.data.Dataset):
    """Image i is filled with i; its left column is marked, so that a flip shows."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        image = torch.full((3, 4, 4), float(index))
        image[..., 0] = -1
        return image


def steps(count, length=10, batch_size=4, seed=0, **options) -> torch.Tensor:
    """(count, batch, 3, 4, 4)."""
    return torch.stack(list(islice(training_loader(Numbered(length), batch_size, seed, **options), count)))


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
