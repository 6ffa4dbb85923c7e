"""What is hidden: masks by image, by folder and by colour, and what a model sees of it."""

import csv

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")

from inference_cases import KEYPOINTS, Finder, S
from PIL import Image

from ppl_fast.data.mask import load_mask, visible_after_resizing
from ppl_fast.data.pixels import resized
from ppl_fast.inference import collect, estimate

RNG = np.random.default_rng(0)


class Seeing(Finder):
    """Takes note of what it is given to see."""

    iterative = True

    def __init__(self):
        super().__init__()
        self.seen, self.iterations = [], []

    def estimate(self, images, iterations=1, visible=None):
        self.seen.append(visible)
        self.iterations.append(iterations)
        return super().estimate(images if visible is None else images * visible)

    @property
    def visible(self):
        return torch.cat(self.seen)[:, 0].numpy()


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def square(size=(40, 30), box=(8, 5, 20, 15)):
    """A mask, white within a box (left, top, right, bottom)."""
    pixels = np.zeros(size[::-1], np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = 255
    return pixels


@pytest.mark.parametrize(("width", "height"), [(40, 30), (97, 61), (20, 13), (32, 32)])
def test_a_resized_pixel_is_hidden_where_any_hidden_pixel_has_a_share(width, height):
    hidden = RNG.random((height, width)) < 0.02
    pixels = RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)
    shown = visible_after_resizing(hidden, S)[0].numpy()
    first = resized(Image.fromarray(pixels), S).numpy()
    changed = np.zeros((S, S), bool)
    for low, high in ((0, 255), (255, 0)):  # whatever the hidden pixels are, the visible ones are the same
        repainted = pixels.copy()
        repainted[hidden] = np.where(pixels[hidden] > 127, low, high)
        changed |= (resized(Image.fromarray(repainted), S).numpy() != first).any(axis=0)
    assert not (changed & shown).any()
    assert changed.sum() > 0.8 * (~shown).sum() > 0  # and no more is hidden than that, up to what rounding swallows
    assert visible_after_resizing(np.zeros_like(hidden), S).all()
    assert not visible_after_resizing(np.ones_like(hidden), S).any()


def test_what_is_hidden_does_not_matter(tmp_path):
    mask, poses = save(tmp_path / "mask.png", square()), []
    pixels = RNG.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    for shade in (0, 200):
        pixels[square() > 0] = shade
        save(tmp_path / "in/a.png", pixels)
        poses.append(collect(estimate(Seeing(), tmp_path / "in", masks=mask)).keypoints)
    np.testing.assert_array_equal(*poses)
    assert not np.array_equal(collect(estimate(Seeing(), tmp_path / "in")).keypoints, poses[0])


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_one_mask_for_all(images, tmp_path, suffix):
    model = Seeing()
    estimation = estimate(model, images, masks=save(tmp_path / f"mask.{suffix}", square()), batch_size=4)
    assert len(collect(estimation)) == 10 and estimation.masks.whole == 0
    expected = visible_after_resizing(square() > 0, S).numpy()
    assert (model.visible == expected).all() and not expected.all() and model.iterations == [3, 3, 3]


@pytest.mark.parametrize("iterations", [1, 2])
def test_passes_that_are_asked_for(images, tmp_path, iterations):
    model = Seeing()
    list(estimate(model, images, masks=save(tmp_path / "mask.png", square()), iterations=iterations))
    assert {*model.iterations} == {iterations}


def test_passes_of_models_without_rounds_and_without_masks(images, tmp_path):
    model = Seeing()
    list(estimate(model, images))
    model.iterative = False
    list(estimate(model, images, masks=save(tmp_path / "mask.png", square())))
    assert {*model.iterations} == {1}


def test_a_mask_an_image(images, clips, tmp_path):
    """By name, whatever the suffix; images without one are whole, and counted."""
    model = Seeing()
    save(tmp_path / "masks/1.bmp", square())
    save(tmp_path / "masks/4.png", square(box=(0, 0, 40, 30)))
    save(tmp_path / "masks/other.png", square())
    estimation = estimate(model, images, masks=tmp_path / "masks")
    assert estimation.masks.report == (
        "masks for 2 of 10 images and videos; the others count as whole\nmasks that belong to none of them: 1"
    )
    names = collect(estimation).names
    expected = np.ones((10, S, S), bool)
    expected[names.index("1.png")] = visible_after_resizing(square() > 0, S)[0]
    expected[names.index("4.png")] = False
    np.testing.assert_array_equal(model.visible, expected)
    assert estimation.masks.whole == 8


def test_a_mask_a_video(clips, tmp_path):
    model = Seeing()
    save(tmp_path / "masks/far/b.png", square((64, 48)))
    names = collect(estimate(model, clips, masks=tmp_path / "masks", batch_size=4)).names
    hidden = [name for name, shown in zip(names, model.visible, strict=True) if not shown.all()]
    assert hidden == ["far/b.avi"] * 5


def test_tensors_have_masks_too(tmp_path):
    model, images = Seeing(), torch.rand(3, 3, S, S)
    save(tmp_path / "masks/000001.png", square((S, S), (0, 0, 10, 10)))
    list(estimate(model, images, masks=tmp_path / "masks"))
    assert [(~shown).sum() for shown in model.visible] == [0, 100, 0]


def test_a_colour_is_hidden_within_its_tolerance(tmp_path):
    pixels = np.full((S, S, 3), 40, np.uint8)
    for row, colour in enumerate([(250, 0, 250), (255, 10, 245), (239, 0, 255), (255, 11, 255)]):
        pixels[row, 5] = colour
    save(tmp_path / "a.png", pixels)
    save(tmp_path / "b.png", np.full((S, S, 3), 40, np.uint8))
    model = Seeing()
    estimation = estimate(model, tmp_path, masks=(np.int64(250), 0, 250))
    list(estimation)
    assert np.argwhere(~model.visible[0]).tolist() == [[0, 5], [1, 5]]
    assert estimation.masks.whole == 1
    model = Seeing()
    list(estimate(model, tmp_path, masks=(255, 0, 255)))
    assert np.argwhere(~model.visible[0]).tolist() == [[0, 5], [1, 5]]


def test_masks_of_every_mode(tmp_path):
    mask = square() > 0
    image = Image.fromarray(square())
    image.convert("1").save(tmp_path / "bits.png")
    image.convert("P").save(tmp_path / "palette.png")
    Image.fromarray(square().astype(np.uint16) * 257).save(tmp_path / "deep.png")
    painted = np.zeros((30, 40, 4), np.uint8)
    painted[mask] = 255  # on a ground that is transparent
    save(tmp_path / "painted.png", painted)
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(load_mask(path), mask)


@pytest.mark.parametrize(
    ("masks", "error", "sentence"),
    [
        ("nowhere", ValueError, "masks must be an image, or a folder of them; .*nowhere is missing"),
        ("small.png", ValueError, "small.png must have the size of 0.png, 40 x 30 pixels, got 20 x 30"),
        ("ones.png", ValueError, "ones.png: hidden pixels must be white, 255, got 1 as the brightest"),
        ("text.png", ValueError, "text.png could not be decoded"),
        ("others", ValueError, "others must have the names of images or videos, got none"),
        ("twice", ValueError, "twice must hold one for 1.png, got 1.bmp and 1.jpg"),
        ("wrong", ValueError, "1.png must have the size of 1.png, 40 x 30 pixels, got 20 x 30"),
        ((1, 2), ValueError, r"a colour \(R, G, B\) of 0 to 255, got \(1, 2\)"),
        ((1, 2, 256), ValueError, "of 0 to 255"),
        ((0.5, 0, 0), ValueError, "of 0 to 255"),
        (7, TypeError, r"masks must be a path or a colour \(R, G, B\), got int"),
    ],
)
def test_masks_that_do_not_fit_are_refused_before_any_work(images, tmp_path, masks, error, sentence):
    save(tmp_path / "small.png", square((20, 30), (0, 0, 5, 5)))
    save(tmp_path / "ones.png", square() // 255)
    (tmp_path / "text.png").write_text("no image")
    save(tmp_path / "others/none.png", square())
    for name in ("1.bmp", "1.jpg"):
        save(tmp_path / "twice" / name, square())
    save(tmp_path / "wrong/1.png", square((20, 30), (0, 0, 5, 5)))
    with pytest.raises(error, match=sentence):
        estimate(Seeing(), images, masks=tmp_path / masks if isinstance(masks, str) else masks)


def test_masks_among_the_images_are_refused(tmp_path):
    save(tmp_path / "a.png", np.zeros((30, 40, 3), np.uint8))
    for masks in (tmp_path, save(tmp_path / "masks/a.png", square()), tmp_path / "masks"):
        with pytest.raises(ValueError, match="masks must lie outside of the images"):
            estimate(Seeing(), tmp_path, masks=masks)


@pytest.mark.slow
def test_the_command(images, tmp_path, capsys):
    pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
    pytest.importorskip("accelerate", reason="training needs the train extra")
    from tiny import fails, run_steps

    from ppl_fast.cli import main
    from ppl_fast.training import load_model

    run = tmp_path / "run"
    run_steps(images, run, 2)
    mask = save(tmp_path / "masks/3.png", square())
    colour = "230,200,90"  # of the bars

    def poses(*options):
        assert main(["estimate", *map(str, (run, images, "--out", tmp_path / "p.csv", *options))]) == 0
        rows = list(csv.reader((tmp_path / "p.csv").open()))[1:]
        return np.array([row[1:] for row in rows], float).reshape(10, -1, 2)

    capsys.readouterr()
    for options, masks, whole in (
        (["--mask", mask], mask, None),
        (["--mask", mask.parent], mask.parent, 9),
        (["--mask-color", colour], (230, 200, 90), None),
    ):
        found = poses(*options)
        expected = collect(estimate(load_model(run), images, masks=masks, iterations=3)).keypoints
        np.testing.assert_allclose(found, expected, atol=2e-3)
        said = f"{whole} of them have nothing hidden" in capsys.readouterr().out
        assert said == (whole is not None)
        assert not np.allclose(found, poses("--iterations", 1), atol=2e-3)
    start = ("estimate", run, images, "--out", tmp_path / "q.csv")
    assert "exclude each other" in fails(capsys, *start, "--mask", mask, "--mask-color", colour)
    assert "as 255,0,255, got 1,2" in fails(capsys, *start, "--mask-color", "1,2")
    assert "got red" in fails(capsys, *start, "--mask-color", "red")
    assert "is missing" in fails(capsys, *start, "--mask", tmp_path / "nowhere")
    assert not (tmp_path / "q.csv").exists()


def test_a_model_without_rounds_sees_hidden_pixels_as_0(images, tmp_path):
    from ppl_fast import AutoLink

    model = AutoLink(KEYPOINTS, 32, detector_size=32, detector_base=4, translator="light", translator_base=4).eval()
    mask = save(tmp_path / "mask.png", square())
    found = collect(estimate(model, images, masks=mask)).normalised
    from ppl_fast.data import ImageFolder

    pixels = torch.stack(list(ImageFolder(images, 32))) * visible_after_resizing(square() > 0, 32)
    np.testing.assert_allclose(found, model.estimate(pixels).double().numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="iterations must be 1"):
        list(estimate(model, images, masks=mask, iterations=2))
