"""A prior that is given, and held while the rest learns: links and memory stay, keypoints keep their meaning."""

import pytest
import torch
from model_cases import losses_of_steps, pictures, tiny
from tiny import MODEL, TRAIN, draw_images, run_steps

from ppl_fast import ExtendedPPL
from ppl_fast.models import losses
from ppl_fast.training import TrainConfig, load_model, train
from ppl_fast.training.traffic import exchanged


def parts(model):
    """What a model has, cloned: of its prior, and the rest."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prior = {name for name in state if name == "link_parameters" or name.startswith("memory.")}
    return {name: state.pop(name) for name in prior}, state


def test_a_held_prior_stays_bit_for_bit_while_the_rest_learns():
    model = tiny(head="position", hold_prior=True, plausibility_weight=5.0, prior_weight=100.0).train()
    prior, rest = parts(model)
    losses_of_steps(model, pictures(), steps=4)
    after, learned = parts(model)
    assert all(torch.equal(tensor, after[name]) for name, tensor in prior.items())
    weights = [name for name, _ in model.named_parameters() if name not in prior]
    assert weights and not any(torch.equal(rest[name], learned[name]) for name in weights)
    assert exchanged(model)["memory"] == 0 < exchanged(tiny())["memory"]


def test_without_the_option_it_learns():
    model = tiny(head="position", plausibility_weight=5.0).train()
    before = parts(model)[0]
    losses_of_steps(model, pictures(), steps=4)
    after = parts(model)[0]
    assert not any(torch.equal(before[name], after[name]) for name in ("link_parameters", "memory.codebook"))


def test_plausibility_is_the_squared_distance_to_the_recalled_pose():
    keypoints, recalled = torch.tensor([[[0.0, 0], [1, 1]]]), torch.tensor([[[3.0, 4], [1, 1]]])
    assert losses.plausibility(keypoints, recalled) == 12.5
    model = tiny(head="position", plausibility_weight=5.0).train()
    out = model(pictures())
    distance = (out.keypoints - out.recalled).square().sum(dim=2).mean()
    torch.testing.assert_close(out.losses["plausibility"], 5 * distance)
    out.losses["plausibility"].backward()
    assert model.regressor.maps.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.memory.parameters()), "the pose comes to the memory"
    assert "plausibility" not in tiny(head="position").train()(pictures()).losses


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    run_steps(draw_images(folder / "images"), folder / "run", 3)
    return folder


def begun(trained, out, steps, resume=False, model=None, start="run"):
    options = MODEL | {"hold_prior": True, "plausibility_weight": 5.0} | (model or {})
    start = None if start is None else trained / start
    config = TrainConfig(**(TRAIN | {"steps": steps, "seed": 1}))
    return train(options, config, trained / "images", out, resume, architecture="extended-ppl", start=start)


def test_a_run_begins_with_the_prior_of_another_and_keeps_it_when_resumed(trained, tmp_path):
    begun(trained, tmp_path / "run", 3)
    resumed = begun(trained, tmp_path / "run", 5, resume=True, start=None)
    whole = begun(trained, tmp_path / "whole", 5)
    given = parts(load_model(trained / "run"))[0]
    for model in (resumed, whole, load_model(tmp_path / "run")):
        assert type(model) is ExtendedPPL and model.config["hold_prior"]
        assert all(torch.equal(tensor, given[name]) for name, tensor in parts(model)[0].items())
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_what_cannot_be_held_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="hold_prior holds what a model has learned, and needs one"):
        begun(trained, tmp_path / "run", 3, start=None)
    sentence = r"hold_prior needs the prior of .*run whole, and does not have link_parameters, memory\."
    with pytest.raises(ValueError, match=sentence):
        begun(trained, tmp_path / "run", 3, model={"num_keypoints": 5})
    assert not (tmp_path / "run").exists()
