"""Folds of labelled samples: each is left out once, and clips whole where there are enough."""

import numpy as np

from ppl_fast.evaluation.folds import fold_numbers


def test_folds_leave_each_sample_out_once():
    assert np.bincount(fold_numbers(20, 0)).tolist() == [2] * 10
    assert np.bincount(fold_numbers(50, 1)).tolist() == [10] * 5
    assert (fold_numbers(50, 0) != fold_numbers(50, 1)).any()


def test_enough_clips_are_left_out_whole():
    clips = [f"videos/{number % 6}" for number in range(30)]
    for folds in (None, 5):
        found = fold_numbers(30, 0, folds, clips)
        assert sorted(np.bincount(found)) == [5, 5, 5, 5, 10]
        assert all(len({fold for fold, clip in zip(found, clips, strict=True) if clip == name}) == 1 for name in clips)
    few = ["a", "b", "c", "d"] * 5
    assert np.array_equal(fold_numbers(20, 1, None, few), fold_numbers(20, 1))
