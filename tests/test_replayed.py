"""Estimates replayed from CUDA graphs are those of the model, for each shape that comes again.

There is no CUDA graph on a CPU: a stand-in runs the method again at each replay, on the arguments that it was recorded
with, and leaves its results where those of the first replay were. test_gpu_models.py replays real ones.
"""

from contextlib import nullcontext

import pytest
import torch
from model_cases import pictures, tiny

from ppl_fast import optimize
from ppl_fast._cuda_graphs import Recorder
from ppl_fast.models import replayed
from ppl_fast.models.replayed import MOST, Replayed


class StandIn(Recorder):
    records = 0
    error: Exception | None = None

    def __init__(self, device):
        self.aside = nullcontext

    def record(self, function):
        if StandIn.error:
            raise StandIn.error
        StandIn.records += 1
        kept = []

        def replay():
            found = function()
            if not kept:
                kept.append(found)
            with torch.inference_mode():  # as a GPU, which does not ask what tensors were made in
                for old, new in zip(_flat(kept[0]), _flat(found), strict=True):
                    old.copy_(new)
            return kept[0]

        return replay

    def recover(self):
        pass


def _flat(result):
    return [result] if isinstance(result, torch.Tensor) else [each for part in result for each in _flat(part)]


@pytest.fixture
def fast(monkeypatch):
    """A model, and the same with its rounds replayed."""
    monkeypatch.setattr(replayed, "Recorder", StandIn)
    monkeypatch.setattr(StandIn, "records", 0)
    torch.manual_seed(0)
    model = tiny().eval()
    plain, graphs = optimize(model), optimize(model)
    graphs.estimate_rounds = Replayed(graphs.estimate_rounds, torch.device("cpu"))
    return plain, graphs


def images(count, number):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(number)) * 2 - 1


def test_estimates_are_the_models_for_every_shape(fast):
    plain, graphs = fast
    visible = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    visible[..., 9:] = False
    kept = []
    for number in range(4):
        for given in (
            (images(2, number),),
            (images(3, number),),
            (images(2, number), 3),
            (images(2, number), 3, visible),
        ):
            found, expected = (model.estimate_rounds(*given) for model in (graphs, plain))
            kept.append((found, expected))
            visible = visible.roll(number, 3)
    assert StandIn.records == 4 and graphs.estimate_rounds.replays == 3 * 4
    for found, expected in kept:  # and none was overwritten by a later one
        assert all(torch.equal(*pair) for pair in zip(_flat(found), _flat(expected), strict=True))
    assert torch.equal(graphs.estimate(images(2, 9)), plain.estimate(images(2, 9)))


def test_other_layouts_and_numbers_are_recorded_apart(fast):
    plain, graphs = fast
    for number in range(3):
        for given in (images(2, number), images(2, number).contiguous(memory_format=torch.channels_last)):
            assert torch.equal(graphs.estimate(given), plain.estimate(given))
    assert StandIn.records == 2
    for count in range(4, 4 + MOST):
        for number in range(3):
            assert torch.equal(graphs.estimate(images(count, number)), plain.estimate(images(count, number)))
    assert StandIn.records == MOST


def test_a_graph_recorded_in_inference_mode_serves_outside_of_it_as_well(fast):
    plain, graphs = fast
    for number in range(4):
        with torch.inference_mode(number < 2):
            assert torch.equal(graphs.estimate(images(2, number)), plain.estimate(images(2, number)))
    assert StandIn.records == 1 and graphs.estimate_rounds.replays == 3


def test_what_is_autocast_is_recorded_apart(fast):
    _, graphs = fast
    for number in range(3):
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                graphs.estimate(images(2, number))
    assert StandIn.records == 2 and graphs.estimate_rounds.replays == 4


def test_wrong_images_are_refused_as_ever(fast):
    for _ in range(3):
        with pytest.raises(ValueError, match=r"images must have shape \(B, 3, 32, 32\)"):
            fast[1].estimate(images(2, 0)[:, :2])
    with pytest.raises(TypeError, match="images must be"):
        fast[1].estimate([1.0])


def test_what_cannot_be_recorded_is_said_and_estimated(fast, monkeypatch, capsys):
    plain, graphs = fast
    monkeypatch.setattr(StandIn, "error", RuntimeError("operation not permitted\nand more"))
    for number in range(3):
        assert torch.equal(graphs.estimate(images(2, number)), plain.estimate(images(2, number)))
    said = capsys.readouterr().out
    assert said.count("without a CUDA graph") == 1 and "(operation not permitted)" in said


def test_a_graph_wants_a_gpu():
    with pytest.raises(ValueError, match="cuda_graph needs a model on a CUDA device, got one on cpu"):
        optimize(tiny(), cuda_graph=True)
    assert optimize(tiny()).estimate(pictures(1)).shape == (1, 5, 2)
