"""Estimation: rounds, visible masks, and bad input."""

import threading

import numpy as np
import pytest
import torch
from model_cases import inputs_of, pictures, tiny


@pytest.fixture
def model():
    model = tiny()
    for _ in range(3):  # BatchNorm statistics away from their start
        model(pictures())
    return model.eval()


def test_one_iteration_is_the_plain_estimate(model):
    images = pictures()
    with torch.no_grad():
        expected = model(images).keypoints
    found = model.estimate(images)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_rounds_feed_the_reconstruction_back(model):
    images = pictures()
    heatmaps = inputs_of(model.translator)
    rounds = model.estimate_rounds(images, 3)
    assert len(rounds) == 3 and len(heatmaps) == 2 and torch.equal(rounds[0][1], images)
    for number, (reference, heatmap) in enumerate(heatmaps[:2]):
        # Appearance always comes from the given images, the pose from the memory's version of the round before.
        torch.testing.assert_close(reference, images * model.alpha.detach())
        recalled, _ = model.memory(rounds[number][0])
        torch.testing.assert_close(heatmap, model.draw(recalled, model.link_weights()).detach())
        with torch.no_grad():
            seen = model.translator(reference, heatmap).clamp(-1, 1)
        torch.testing.assert_close(rounds[number + 1][1], seen)
    torch.testing.assert_close(model.estimate(images, 3), rounds[-1][0])


def test_visible_pixels_stay_and_hidden_ones_do_not_matter(model):
    images = pictures()
    visible = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    visible[:, :, 8:20, 4:16] = False
    rounds = model.estimate_rounds(images, 3, visible)
    for _, seen in rounds:
        assert torch.equal(seen.movedim(1, 0)[:, visible[:, 0]], images.movedim(1, 0)[:, visible[:, 0]])
    hidden = ~visible.expand(-1, 3, -1, -1)
    assert not rounds[0][1][hidden].any() and rounds[1][1][hidden].any()
    other = torch.where(visible, images, pictures(seed=9))
    assert torch.equal(model.estimate(other, 3, visible), rounds[-1][0])


def test_everything_visible_changes_nothing(model):
    images = pictures()
    visible = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    torch.testing.assert_close(model.estimate(images, 3, visible), model.estimate(images))


def test_empty_batch(model):
    assert model.estimate(pictures(0), 2).shape == (0, 5, 2)


def test_prototypes_decode_single_vectors(model):
    poses = model.prototype_poses()
    assert poses.shape == (3, 4, 5, 2)
    tokens = model.memory.codebook.mean(1).clone()
    tokens[1] = model.memory.codebook[1, 2]
    torch.testing.assert_close(poses[1, 2], model.memory.decode(tokens[None])[0].detach())


BAD = [
    (lambda x: x.numpy(), TypeError, r"PPL: images must be a tensor, got ndarray"),
    (lambda x: x[0], ValueError, r"PPL: images must have shape \(B, 3, 32, 32\), got \(3, 32, 32\)"),
    (lambda x: x[:, :1], ValueError, r"images must have shape \(B, 3, 32, 32\), got \(2, 1, 32, 32\)"),
    (lambda x: x[..., :16], ValueError, r"images must have shape \(B, 3, 32, 32\), got \(2, 3, 32, 16\)"),
    (lambda x: (x * 127 + 128).byte(), TypeError, r"images must have a dtype of .*, got uint8"),
    (lambda x: x * 127 + 128, ValueError, r"images must lie in \[-1, 1\], got values from 1.* to 25"),
    (lambda x: x * torch.nan, ValueError, r"images must lie in \[-1, 1\], got values from nan"),
    (lambda x: x.to("meta"), ValueError, r"images must be on the model's device, cpu, got meta"),
]


@pytest.mark.parametrize("spoil,error,message", BAD)
def test_bad_images(model, spoil, error, message):
    for call in (model, model.estimate):
        with pytest.raises(error, match=message):
            call(spoil(pictures()))


def test_other_bad_arguments(model):
    images = pictures()
    with pytest.raises(ValueError, match=r"reference must have shape \(2, 3, 32, 32\), got \(1, 3, 32, 32\)"):
        model(images, images[:1])
    for iterations in (0, 1.5):
        with pytest.raises(ValueError, match="iterations must be an int of at least 1, got"):
            model.estimate(images, iterations)
    with pytest.raises(TypeError, match="visible must have a dtype of bool, got float32"):
        model.estimate(images, 2, torch.ones(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r"visible must have shape \(2, 1, 32, 32\), got \(2, 3, 32, 32\)"):
        model.estimate(images, 2, images > 0)


def test_other_float_dtypes_are_accepted(model):
    images = pictures().half()
    torch.testing.assert_close(model.estimate(images), model.estimate(images.float()))


@pytest.mark.slow
def test_threads_estimate_on_a_model_in_training_mode():
    """Each with the results of eval mode, while no flag, buffer or parameter of the model moves."""
    model = tiny()
    model.regressor.trunk[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = [pictures(seed=seed) for seed in range(4)]
    expected = [tiny().eval().estimate(each, 3) for each in images]
    seen, wrong = [], []
    for module in model.modules():
        module.register_forward_pre_hook(lambda *_: seen.append({n: m.training for n, m in model.named_modules()}))

    def work(i):
        wrong.extend(i for _ in range(10) if not torch.equal(model.estimate(images[i], 3), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and seen and all(each == modes for each in seen)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_modules_compiled_in_place_do_not_bring_their_mode_along():
    model = tiny()
    model.regressor.compile(backend="eager")
    assert torch.equal(model.estimate(pictures()), tiny().eval().estimate(pictures()))


def test_iterations_are_a_number_of_numpys_too(model):
    assert torch.equal(model.estimate(pictures(), np.int64(2)), model.estimate(pictures(), 2))
