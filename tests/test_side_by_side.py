"""Work in several processes: its results, its errors, and what is left of it."""

import multiprocessing
import os
import time

import pytest
import torch

from ppl_fast._side_by_side import meanwhile, side_by_side

pytestmark = pytest.mark.slow  # each process imports torch


def told(factor, number, advanced):
    for _ in range(number):
        advanced()
    return os.getpid(), factor * torch.full((3,), number)


def threads(_):
    return torch.get_num_threads()


def failing(number):
    if number == 1:
        raise ValueError("no such number: 1")
    return number


def leaving(number):
    os._exit(7)


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_steps_are_counted(processes):
    steps = []
    found = side_by_side(told, (10,), [(number,) for number in (3, 0, 2)], processes, lambda: steps.append(0))
    assert [result.tolist() for _, result in found] == [[30] * 3, [0] * 3, [20] * 3]
    assert len(steps) == 5
    used = {process for process, _ in found}
    assert used == {os.getpid()} if processes == 1 else len(used) == 2 and os.getpid() not in used


def test_they_share_the_threads():
    torch.set_num_threads(5)
    assert side_by_side(threads, (), [(0,), (1,)], 9) == [2, 2]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_is_what_was_raised_and_ends_all(processes):
    with pytest.raises(ValueError, match="no such number: 1"):
        side_by_side(failing, (), [(0,), (1,), (2,)], processes)
    assert not multiprocessing.active_children()


def test_a_process_that_was_lost_is_an_error():
    with pytest.raises(RuntimeError, match="a process at work ended early, with exit code 7"):
        side_by_side(leaving, (), [(0,), (1,)], 2)
    assert not multiprocessing.active_children()


def writing(path, text):
    path.write_text(f"{text} by {os.getpid()}, {torch.get_num_threads()} threads")


def waiting(path):
    path.touch()
    time.sleep(600)


def test_meanwhile_another_process_has_half_of_the_threads(tmp_path):
    torch.set_num_threads(5)
    with meanwhile(writing, tmp_path / "it", "done"):
        assert torch.get_num_threads() == 3
        here = os.getpid()
    assert torch.get_num_threads() == 5
    text = (tmp_path / "it").read_text()
    assert text.startswith("done by ") and text.endswith(", 2 threads") and f" {here}," not in text


def test_an_error_meanwhile_is_raised_behind_the_block():
    reached = False
    with pytest.raises(ValueError, match="no such number: 1"), meanwhile(failing, 1):
        reached = True
    assert reached and not multiprocessing.active_children()
    with pytest.raises(RuntimeError, match="ended early, with exit code 7"), meanwhile(leaving, 1):
        pass


def test_an_error_in_the_block_ends_what_is_at_work(tmp_path):
    with pytest.raises(KeyError), meanwhile(waiting, tmp_path / "begun"):
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        raise KeyError("block")
    assert not multiprocessing.active_children()
