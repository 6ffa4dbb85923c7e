"""PPL as a whole: outputs, losses, modes, masks, numerics."""

import pytest
import torch
from model_cases import inputs_of, losses_of_steps, pictures, tiny

from ppl_fast.models import PPL, link_model


def test_forward_gives_what_it_promises():
    model, images = tiny(separation_weight=0.5, link_length_weight=0.25), pictures(3)
    out = model(images)
    assert out.keypoints.shape == (3, 5, 2) and out.affine.shape == (3, 5, 2, 3)
    assert out.link_heatmap.shape == (3, 1, 32, 32) and out.reconstruction.shape == (3, 3, 32, 32)
    assert list(out.losses) == ["reconstruction", "boundary", "memory", "commitment", "separation", "link_length"]
    assert torch.allclose(sum(out.losses.values()), out.loss)
    points, theta = out.prior.keypoints, out.affine
    expected = torch.einsum("bnij,nj->bni", theta[..., :2], points) + theta[..., 2]
    torch.testing.assert_close(out.keypoints, expected)
    torch.testing.assert_close(out.losses["reconstruction"], (out.reconstruction - images).square().mean())


def test_prior_is_symmetric_and_its_links_are_row_major():
    model = tiny()
    keypoints, connectivity = model.prior()
    assert keypoints.shape == (5, 2) and not keypoints.requires_grad
    assert torch.equal(connectivity, connectivity.T) and not connectivity.diagonal().any()
    assert model.links.tolist() == [[i, j] for i in range(5) for j in range(i + 1, 5)]
    expected = torch.log1p(torch.exp(100 * model.link_parameters))
    torch.testing.assert_close(connectivity[model.links[:, 0], model.links[:, 1]], expected)


def test_link_parameters_start_where_the_options_say():
    torch.manual_seed(0)
    logits = PPL(64, 32, link_factor=100, link_start=-2.5).link_parameters * 100
    assert abs(logits.mean() + 2.5) < 0.1 and abs(logits.std() - 1) < 0.1


def test_one_rasterisation_per_forward(monkeypatch):
    calls, draw = [], link_model.link_heatmap
    monkeypatch.setattr(link_model, "link_heatmap", lambda *args: calls.append(args) or draw(*args))
    tiny()(pictures())
    assert len(calls) == 1


def test_loss_terms_match_their_definitions():
    model = tiny(separation_weight=1.0, separation_sigma=0.3, link_length_weight=1.0, boundary_weight=2.0)
    with torch.no_grad():
        model.regressor.affine[-1].bias += torch.tensor([0.0, 0, 1.5, 0, 0, 0])  # out to the right
    out = model(pictures())
    k, weights = out.keypoints.detach(), model.link_weights().detach()
    boundary = (k.abs() - 1).clamp(min=0).sum(1).mean()
    assert boundary > 0.1
    torch.testing.assert_close(out.losses["boundary"].detach(), 2 * boundary)
    i, j = model.links.T
    lengths, wanted = (k[:, i] - k[:, j]).norm(dim=2), (out.prior.keypoints[i] - out.prior.keypoints[j]).norm(dim=1)
    separation = torch.exp(-lengths.square() / (2 * 0.3**2)).sum(1).mean()
    torch.testing.assert_close(out.losses["separation"].detach(), separation)
    torch.testing.assert_close(out.losses["link_length"].detach(), (weights * (wanted - lengths).abs()).sum(1).mean())


def test_memory_loss_trains_the_memory_alone():
    model = tiny(reconstruction_weight=0.0, boundary_weight=0.0)
    out = model(pictures())
    out.loss.backward()
    assert not any(p.grad.any() for p in model.regressor.parameters())
    assert all(p.grad.any() for p in model.memory.parameters())


def test_every_parameter_gets_a_gradient():
    model = tiny()
    model(pictures()).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_gradients_survive_coinciding_keypoints():
    model = tiny(link_length_weight=1.0, separation_weight=1.0, head="affine")
    with torch.no_grad():
        model.regressor.affine[-1].weight.zero_()  # all keypoints at the origin
    model(pictures()).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_masks_drop_whole_blocks_in_training_only():
    model = tiny(mask_ratio=0.5)
    seen, images = inputs_of(model.translator), pictures(16)
    model(images)
    model.eval()(images)
    masked, whole = (args[0].detach() / model.alpha.detach() for args in seen)
    torch.testing.assert_close(whole, images)
    kept = (masked != 0).any(1).float()
    blocks = kept.view(16, 4, 8, 4, 8).mean((2, 4))
    assert ((blocks == 0) | (blocks > 0.99)).all() and 0.4 < blocks.mean() < 0.6
    assert torch.equal(masked[:, 0][kept > 0], images[:, 0][kept > 0])


def test_a_given_reference_is_taken_whole():
    model = tiny(mask_ratio=1.0)
    seen, frame = inputs_of(model.translator), pictures(seed=2)
    model(pictures(), frame)
    torch.testing.assert_close(seen[0][0].detach(), frame * model.alpha.detach())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_occluding_the_regressors_input(share):
    model = tiny(occlude_input=share, occlude_ratio=0.5)
    seen, images = inputs_of(model.regressor), pictures(64)
    model(images)
    touched = (seen[0][0] != images).flatten(1).any(1).float().mean()
    assert abs(touched - share) < 0.2
    model.eval()(images)
    assert torch.equal(seen[1][0], images)


def test_eval_mode_leaves_every_buffer_untouched():
    model = tiny(reseed_after=1).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(pictures())
    model.train()
    model.regressor.trunk[0].eval()
    model.estimate(pictures(), iterations=3)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training and model.memory.training and not model.regressor.trunk[0].training  # as they were


@pytest.mark.parametrize("translator,levels", [("unet", 3), ("light", 3), ("unet", 1), ("light", 1)])
def test_a_few_steps_learn(translator, levels):
    losses = losses_of_steps(tiny(translator=translator, translator_levels=levels), pictures(4))
    assert losses[-1] < 0.5 * losses[0]


def test_seeds_decide_everything():
    results = []
    for _ in range(2):
        model = tiny(seed=3, occlude_input=0.5, reseed_after=1)
        model(pictures())
        out = model(pictures())
        out.loss.backward()
        results.append([out.keypoints, out.loss, model.memory.codebook, model.link_parameters.grad])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_bfloat16_autocast_keeps_positions_and_memory_in_float32():
    model, images = tiny(), pictures(4)
    tokens = inputs_of(model.memory.decoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(images)
    out.loss.backward()
    assert out.keypoints.dtype == out.loss.dtype == model.memory.codebook.dtype == torch.float32
    assert all(args[0].dtype == torch.float32 for args in tokens)
    assert out.reconstruction.dtype == torch.bfloat16  # the autocast did reach the convolutions
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.estimate(images, 2)
    assert (rough - model.estimate(images, 2)).abs().max() < 0.05  # bfloat16 features: 8 bits of the maps' logits


def test_channels_last_and_float64_agree_with_the_plain_model():
    images = pictures()
    plain = tiny().eval()(images)
    last = tiny().eval().to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    double = tiny().eval().double()(images.double())
    for other in (last, double):
        torch.testing.assert_close(other.keypoints.float(), plain.keypoints, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other.reconstruction.float(), plain.reconstruction, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.loss.float(), plain.loss, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch's own, on importing inductor
def test_compiled_training_step_agrees_with_eager(backend):
    images, results = pictures(), []
    for compiled in (False, True):
        model = tiny(mask_ratio=0.0, reseed_after=2)
        step = torch.compile(model, backend=backend, fullgraph=True) if compiled else model
        out = step(images)
        out.loss.backward()
        results.append([out.loss.detach(), model.link_parameters.grad, model.memory.codebook])
    torch.compiler.reset()
    for eager, other in zip(*results, strict=True):
        torch.testing.assert_close(other, eager)


def test_width_scales_regressor_and_translator():
    narrow, wide = tiny(width=0.5), tiny(width=2.0)
    assert narrow.regressor.maps.in_channels * 4 == wide.regressor.maps.in_channels
    assert narrow.translator.end.in_channels * 4 == wide.translator.end.in_channels
    assert wide(pictures()).loss.isfinite()


@pytest.mark.parametrize("levels,stride", [(4, 2), (4, 16), (2, 4), (3, 8)])
def test_map_stride_sets_the_maps_resolution(levels, stride):
    model = tiny(regressor_levels=levels, map_stride=stride)
    seen = inputs_of(model.regressor.maps)
    assert model(pictures()).keypoints.shape == (2, 5, 2)
    assert seen[0][0].shape[2:] == (32 // stride, 32 // stride)
