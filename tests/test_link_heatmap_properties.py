"""link_heatmap leaves links out by tile and block: on whatever scene, no pixel may miss its best link for it."""

import importlib
import math

import pytest
import torch
from properties import BACKENDS, given, st, suffix_of

definition = importlib.import_module("ppl_fast.ops.link_heatmap")  # the package's attribute is the function

# Near the image, on a coarse grid (so that links coincide and pixels tie), and far off.
coordinates = st.one_of(
    st.floats(-1.5, 1.5, width=32),
    st.integers(-8, 8).map(lambda i: i / 8),
    st.floats(3, 300, width=32).flatmap(lambda x: st.sampled_from([x, -x])),
)
weights = st.one_of(st.floats(0, 10, width=32), st.sampled_from([0.0, -1.0, -1e-3, 1e-30, 1e-40, 0.5, 0.5]))


@st.composite
def scenes(draw):
    """(keypoints (B, N, 2), weights (E,) or (B, E), links (E, 2), height, width, thickness), float64."""
    b, n = draw(st.integers(1, 2)), draw(st.integers(2, 9))
    if draw(st.booleans()):
        links = definition.default_links(n)
    else:
        index = st.integers(0, n - 1)
        links = torch.tensor(draw(st.lists(st.tuples(index, index), min_size=1, max_size=40)))
    lead = (b,) if draw(st.booleans()) else ()
    e = len(links)

    def tensor(elements, *shape):
        count = math.prod(shape)
        values = draw(st.lists(elements, min_size=count, max_size=count))
        return torch.tensor(values, dtype=torch.float64).reshape(shape)

    side = st.one_of(st.integers(1, 20), st.integers(30, 70))
    thickness = draw(st.sampled_from([1e-6, 7.5e-5, 1e-3, 0.05, 2.0, 50.0]))
    return tensor(coordinates, b, n, 2), tensor(weights, *lead, e), links, draw(side), draw(side), thickness


def exponents(keypoints, w, links, height, width, thickness):
    """log w - d^2 / thickness of every link at every pixel, (B, E, H, W), by the definition in float64."""
    pixels = definition._pixels(height, width, keypoints)
    _, r = definition._residuals(pixels, keypoints[:, links][:, :, None, None])
    return w.clamp(min=0).log().expand(len(keypoints), -1)[..., None, None] - r.square().sum(-1) / thickness


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@given(scene=scenes())
def test_every_pixel_has_its_best_link(backend, dtype, scene):
    keypoints, w, links, *rest = scene
    thickness = rest[-1]
    keypoints, w = keypoints.to(dtype), w.to(dtype)
    with suffix_of(backend) as suffix:
        heatmap, winner = getattr(torch.ops.ppl_fast, f"link_heatmap{suffix}")(keypoints, w, links, *rest)
    logs = exponents(keypoints.double(), w.double(), links, *rest)
    best = logs.amax(1)
    # A distance is a difference of numbers as large as the farthest keypoint, C: off by about eps C, and its square
    # over the thickness by 2 d eps C / thickness + (eps C)^2 / thickness; d^2 / thickness is log w - best.
    eps, far = torch.finfo(dtype).eps, max(2.0, keypoints.abs().max().item())
    blur = 10 * eps * far / thickness**0.5
    squared = (w.double().max().clamp(min=1).log() - best).clamp(min=0)
    slack = 40 * eps * (best.abs() + 10) + 2 * blur * squared.sqrt() + blur**2
    floor = math.log(torch.finfo(dtype).tiny)

    bright = best > floor + slack + 0.1
    assert torch.all((heatmap[:, 0].double().log() - best).abs()[bright] <= slack[bright])
    assert torch.all(heatmap[:, 0][best < floor - slack - 0.1] == 0)
    index = winner.long().clamp(min=0).unsqueeze(1)
    assert torch.all((logs.gather(1, index)[:, 0] >= best - slack)[bright])

    some_positive = (w > 0).expand(len(keypoints), -1).any(1)[:, None, None]
    assert torch.equal(winner >= 0, (heatmap[:, 0] > 0) | ~some_positive)
    # Of links that are the same, none but the first wins anywhere.
    rows = w.expand(len(keypoints), -1)
    for b in range(len(keypoints)):
        for e in winner[b][winner[b] >= 0].unique().tolist():
            same = (links[:e] == links[e]).all(1) & (rows[b, :e] == rows[b, e])
            assert not same.any()
