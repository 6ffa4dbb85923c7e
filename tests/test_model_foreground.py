"""The options that keep links on the figure and the prior on the poses."""

import pytest
import torch
from model_cases import inputs_of, pictures, tiny
from published_cases import SMALL_AUTOLINK

from ppl_fast import ExtendedAutoLink
from ppl_fast.models import losses


def bar(column: int) -> torch.Tensor:
    """(1, 1, 32, 32), 1 on a vertical bar two pixels wide, 0 elsewhere."""
    heatmap = torch.zeros(1, 1, 32, 32)
    heatmap[..., column : column + 2] = 1
    return heatmap


def test_the_figure_is_what_the_reconstruction_misses():
    images = 0.8 * bar(8).expand(1, 3, 32, 32)
    figure = losses.missed(images, torch.full_like(images, 0.05).requires_grad_())
    assert not figure.requires_grad
    assert figure[bar(8) > 0].min() > 0.97 and figure[bar(8) == 0].max() < 0.01


def test_nothing_stands_out_of_an_error_everywhere():
    images = torch.full((1, 3, 32, 32), 0.7)
    figure = losses.missed(images, torch.zeros_like(images))
    torch.testing.assert_close(figure, (1 - torch.tensor(-1 / 16).exp()).expand_as(figure))
    assert not losses.missed(images, images).any()


def test_foreground_draws_a_link_nearer_before_it_touches():
    on, near, far = (losses.foreground(bar(column), bar(8)).item() for column in (8, 12, 24))
    assert on == 0 < near < far


def test_figure_distances_in_both_directions():
    figure = torch.zeros(1, 1, 32, 32)
    figure[..., 4, 8] = figure[..., 20, 8] = 1
    at = torch.tensor([[8.0, 4], [8, 20]]) / 31 * 2 - 1
    off = torch.tensor([[8.0, 4], [11, 24]]) / 31 * 2 - 1
    for points, coverage, stray in ((at, 0, 0), (off, 25 / 2, 25 / 2), (at[[0, 0]], 256 / 2, 0)):
        found = losses.figure_distances(points[None], figure)
        expected = torch.tensor([[coverage], [stray]]) * (2 / 31) ** 2
        torch.testing.assert_close(torch.stack(found), expected, rtol=1e-4, atol=1e-6)
    large = figure.repeat_interleave(4, 2).repeat_interleave(4, 3)  # averaged back to 32 x 32 cells
    corner = torch.tensor([[[8 * 4 + 1.5, 4 * 4 + 1.5], [8 * 4 + 1.5, 20 * 4 + 1.5]]]) / 127 * 2 - 1
    assert torch.stack(losses.figure_distances(corner, large)).max() < 1e-6


def test_a_share_of_the_heatmaps_is_withheld_from_the_translator_in_training_alone():
    model = tiny(withhold=0.5, foreground_weight=2.0, coverage_weight=1.0, stray_weight=1.0)
    seen = inputs_of(model.translator)
    torch.manual_seed(3)
    out = model(pictures(8))
    empty = (seen[-1][1] == 0).all(dim=(1, 2, 3))
    assert 0 < empty.sum() < 8
    assert torch.equal(seen[-1][1][~empty], out.link_heatmap[~empty])
    figure = losses.missed(pictures(8), out.reconstruction)[empty]
    coverage, stray = losses.figure_distances(out.keypoints[empty], figure)
    expected = {"foreground": 2 * losses.foreground(out.link_heatmap[empty], figure)}
    for name, value in (expected | {"coverage": coverage, "stray": stray}).items():
        torch.testing.assert_close(out.losses[name], value.mean())
    model.eval()
    out = model(pictures(8))
    assert torch.equal(seen[-1][1], out.link_heatmap) and "foreground" not in out.losses


@pytest.mark.parametrize("name", ["foreground_weight", "coverage_weight", "stray_weight"])
def test_weights_that_need_withheld_heatmaps(name):
    with pytest.raises(ValueError, match=f"{name} needs a positive withhold"):
        tiny(**{name: 1.0})


@pytest.mark.slow
def test_prior_weight_draws_the_prior_to_the_mean_pose():
    torch.manual_seed(0)
    distances = []
    for weight in (0.0, 100.0):
        model = tiny(prior_weight=weight, memory_weight=0.0)
        optimizer = torch.optim.Adam(model.memory.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            out = model(pictures(8))
            out.loss.backward()
            optimizer.step()
        distances.append((model.prior().keypoints - out.keypoints.detach().mean(dim=0)).norm(dim=1).mean())
    assert distances[1] < 0.1 * distances[0]


def test_a_share_of_what_is_hidden_stays_empty():
    torch.manual_seed(0)
    options = {"occlude_input": 1.0, "occlude_ratio": 0.9, "occlude_fill": True}
    empty = {}
    for share in (0.0, 0.5, 1.0):
        model, images = tiny(**options, occlude_fill_share=share), pictures(24)
        seen = inputs_of(model.regressor)
        model(images)
        empty[share] = int(((seen[-1][0] == 0).flatten(1).float().mean(dim=1) > 0.5).sum())
    assert empty[0.0] == 24 > empty[0.5] > 0 == empty[1.0]


def test_the_regressor_learns_on_what_a_second_round_sees():
    model, images = tiny(occlude_input=0.5, occlude_fill=True), pictures(8)
    buffers = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    torch.manual_seed(1)
    seen = inputs_of(model.regressor)
    model(images)
    first, second = (arguments[0] for arguments in seen)
    changed = (second != images).flatten(1).any(dim=1)
    assert 0 < changed.sum() < 8 and len(first) == changed.sum()
    visible = (first != 0).any(dim=1, keepdim=True)
    _, (_, expected) = tiny().estimate_rounds(images[changed], 2, visible)
    torch.testing.assert_close(second[changed], expected)
    # The pass that fills in counts for no running mean: one update of each, by the training pass.
    assert all(not torch.equal(value, dict(model.named_buffers())[name]) for name, value in buffers.items())
    assert {int(value) for name, value in model.named_buffers() if "num_batches" in name} == {1}


def test_even_coverage_counts_a_limb_by_its_length():
    """A wide block and a thin line of equal length: the block counts far more by area than evenly."""
    figure = torch.zeros(1, 1, 64, 64)
    figure[..., 20:44, 4:28], figure[..., 20:44, 54:56] = 1, 1
    on_block, on_line = torch.tensor([[[-0.5, 0.0]]]), torch.tensor([[[0.73, 0.0]]])

    def shares(even):
        left_out = [losses.figure_distances(points, figure, even=even)[0] for points in (on_line, on_block)]
        return (left_out[0] / left_out[1]).item()  # what the block costs, over what the line costs

    assert shares(even=False) > 6 > 3 > shares(even=True) > 1


def test_withholding_ends_and_equivariance_grows_over_the_training():
    torch.manual_seed(0)
    options = {"withhold": 1.0, "withhold_until": 0.5, "coverage_weight": 1.0, "reconstruction_loss": "mse"}
    views = {"equivariance_weight": 1.0, "equivariance_ramp": 0.2, "view_turn": 0.0, "view_colour": 0.0}
    model, images = ExtendedAutoLink(**SMALL_AUTOLINK, **options, **views), pictures(2)
    found = {}
    for share in (None, 0.0, 0.1, 0.2, 0.6):
        if share is not None:
            model.progressed(share)
        torch.manual_seed(1)
        found[share] = model(images).losses
    assert [("coverage" in found[share]) for share in found] == [True, True, True, True, False]
    whole = found[None]["equivariance"]
    for share, part in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0)):
        torch.testing.assert_close(found[share]["equivariance"], part * whole, rtol=1e-2, atol=1e-9)
