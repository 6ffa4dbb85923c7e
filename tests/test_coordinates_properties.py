"""Between normalised keypoints and pixels: there and back, and where the borders of an image lie."""

import numpy as np
import pytest
import torch
from properties import given, hypothesis, st

from ppl_fast.data.coordinates import from_pixels, to_pixels

sizes = st.tuples(st.integers(1, 10_000), st.integers(1, 10_000))
sides = st.integers(2, 1024)
points = st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=1, max_size=5)


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@given(keypoints=points, side=sides, size=sizes)
def test_there_and_back(make, precision, keypoints, side, size):
    dtype = getattr(np if make is np.array else torch, precision)
    keypoints = make(keypoints, dtype=dtype)
    pixels = to_pixels(keypoints, side, size)
    assert type(pixels) is type(keypoints) and pixels.dtype == keypoints.dtype
    back = from_pixels(pixels, side, size)
    # A few roundings: of resized pixels, up to 2.5 S, half of which are one normalised unit; of original ones, 2.5 W.
    eps = np.finfo(precision).eps
    np.testing.assert_allclose(back, keypoints, rtol=0, atol=20 * eps * side / (side - 1))
    np.testing.assert_allclose(to_pixels(back, side, size), pixels, rtol=0, atol=20 * eps * max(size))


@given(side=sides, size=sizes)
def test_borders(side, size):
    """The image's border lies half a resized pixel beyond -1 and 1, and half a pixel beyond the first and last."""
    half = 1 / (side - 1)
    corners = to_pixels(np.array([[-1 - half, -1 - half], [1 + half, 1 + half]]), side, size)
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [size[0] - 0.5, size[1] - 0.5]], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(to_pixels(np.zeros((1, 2)), side, size), [[(s - 1) / 2 for s in size]], atol=1e-9)


@given(keypoints=points, side=sides, data=st.data())
def test_a_size_for_each_image_is_that_of_each_alone(keypoints, side, data):
    batch = np.array(keypoints)[:, None]  # (n, 1, 2)
    each = data.draw(st.lists(sizes, min_size=len(batch), max_size=len(batch)))
    together = to_pixels(batch, side, np.array(each))
    assert together.shape == batch.shape
    for one, size, alone in zip(together, each, batch, strict=True):
        assert np.array_equal(one, to_pixels(alone, side, size))
    hypothesis.event(f"{len(batch)} images")
