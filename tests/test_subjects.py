"""Masks of where the subject is: read beside the images, learned from, and measured by."""

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")

from model_cases import pictures, tiny
from PIL import Image
from published_cases import SMALL_AUTOLINK

from ppl_fast import PPL, ExtendedAutoLink, evaluation
from ppl_fast.data import ImageFolder, load_labels, make_figures, open_set, training_loader
from ppl_fast.data.subjects import UNKNOWN, SubjectMasks
from ppl_fast.models import losses
from ppl_fast.options.footage import Framing

DRAWN = {"withhold": 0.5, "foreground_weight": 1.0, "coverage_weight": 2.0, "stray_weight": 3.0}


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path):
    """Six images that are their own masks, (40, 24) pixels, of which "b/1.png" has none; and the masks."""
    rng = np.random.default_rng(0)
    for name in ("a/0.png", "a/1.png", "a/2.jpg", "b/0.png", "b/1.png", "b/2.png"):
        white = (rng.random((6, 10)) < 0.4).repeat(4, axis=0).repeat(4, axis=1)
        grey = np.uint8(255 * white)
        save(tmp_path / "images" / name.replace("jpg", "png"), np.stack([grey] * 3, axis=2))
        if name != "b/1.png":
            save(tmp_path / "masks" / name.replace("jpg", "bmp"), grey)
    return tmp_path / "images", tmp_path / "masks"


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_a_mask_lies_where_its_image_does(folders, fit):
    images = open_set(folders[0], 16, framing=Framing(fit)).dataset
    masks = SubjectMasks(folders[1], images)
    assert len(masks) == 6 and "5 of 6" in masks.report and "belong" not in masks.report
    for i, name in enumerate(images.paths):
        if name == "b/1.png":
            assert torch.equal(masks[i], torch.full((1, 16, 16), UNKNOWN))
            continue
        white = (images[i].mean(dim=0, keepdim=True) + 1) / 2
        if fit == "pad":  # what is outside of an image is grey, and no subject
            white[:, :3], white[:, -3:] = 0, 0
            inner = slice(4, 12)
            torch.testing.assert_close(masks[i][:, inner], white[:, inner], atol=0.01, rtol=0)
            assert not masks[i][:, [0, -1]].any()
        else:
            torch.testing.assert_close(masks[i], white, atol=0.01, rtol=0)
    assert 0.2 < masks[0].mean() < 0.7


def test_masks_that_do_not_fit_are_refused(folders, tmp_path):
    images = ImageFolder(folders[0], 16)
    with pytest.raises(ValueError, match=r"must be a folder.*nowhere"):
        SubjectMasks(tmp_path / "nowhere", images)
    with pytest.raises(ValueError, match="outside of the images"):
        SubjectMasks(folders[0] / "a", images)
    save(tmp_path / "others/c.png", np.zeros((24, 40), np.uint8))
    with pytest.raises(ValueError, match="names of images"):
        SubjectMasks(tmp_path / "others", images)
    save(tmp_path / "others/a/0.png", np.zeros((20, 40), np.uint8))
    with pytest.raises(ValueError, match=r"a/0.png, 40 x 24 pixels, got 40 x 20"):
        SubjectMasks(tmp_path / "others", images)
    save(folders[1] / "a/2.png", np.zeros((24, 40), np.uint8))
    save(folders[1] / "a/2.gif", np.zeros((24, 40), np.uint8))
    (folders[1] / "a/2.png").rename(folders[1] / "a/2.tif")
    with pytest.raises(ValueError, match=r"one for a/2.png, got a/2.bmp and a/2.gif and a/2.tif"):
        SubjectMasks(folders[1], images)


def test_images_and_masks_are_mirrored_together(folders):
    images = ImageFolder(folders[0], 16)
    masks = SubjectMasks(folders[1], images)
    loader = training_loader(images, 4, seed=3, flip=True, figures=masks)
    plain = training_loader(images, 4, seed=3, flip=True)
    for _, batch, expected in zip(range(4), loader, plain, strict=False):
        assert set(batch) == {"images", "figure"} and torch.equal(batch["images"], expected)
        white = (batch["images"].mean(dim=1, keepdim=True) + 1) / 2
        known = batch["figure"].flatten(1).amin(dim=1) >= 0
        torch.testing.assert_close(batch["figure"][known], white[known], atol=0.01, rtol=0)


def autolink(**options):
    torch.manual_seed(0)
    return ExtendedAutoLink(**SMALL_AUTOLINK | {"reconstruction_loss": "mse"} | options)


def box(count=4):
    figure = torch.zeros(count, 1, 32, 32)
    figure[..., 3:9, 20:29] = 1
    return figure


@pytest.mark.parametrize("make", [tiny, autolink])
def test_links_and_keypoints_are_drawn_to_the_mask(make):
    model = make(**DRAWN).train()
    images, figure = pictures(4), box()
    torch.manual_seed(1)
    out = model(images, figure=figure)
    coverage, stray = losses.figure_distances(out.keypoints, figure)
    torch.testing.assert_close(out.losses["foreground"], losses.foreground(out.link_heatmap, figure).mean())
    torch.testing.assert_close(out.losses["coverage"], 2 * coverage.mean())
    torch.testing.assert_close(out.losses["stray"], 3 * stray.mean())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        sum(model(images, figure=figure).losses[name] for name in ("coverage", "stray")).backward()
        optimizer.step()
    after = losses.figure_distances(model(images, figure=figure).keypoints, figure)[1]
    assert after.mean() < 0.5 * stray.mean()


def test_images_without_a_mask_learn_as_before():
    images, unknown = pictures(4), torch.full_like(box(), UNKNOWN)
    found = []
    for figure in (None, unknown):
        model = tiny(**DRAWN).train()
        torch.manual_seed(2)
        found.append(model(images, figure=figure).loss)
    assert torch.equal(*found)
    torch.manual_seed(2)
    model = tiny(**DRAWN).train()
    mixed = torch.cat([box(2), unknown[:2]])
    assert not torch.equal(model(images, figure=mixed).loss, found[0])


def test_what_a_model_cannot_be_told():
    images = pictures(2)
    with pytest.raises(TypeError, match="PPL: figure must be None"):
        PPL(num_keypoints=5, image_size=32, width=0.125, reconstruction_loss="mse")(images, figure=box(2))
    with pytest.raises(ValueError, match=r"figure must have shape \(2, 1, 32, 32\)"):
        tiny(**DRAWN)(images, figure=box(3))
    with pytest.raises(TypeError, match="figure must be a float tensor, got torch.bool"):
        tiny(**DRAWN)(images, figure=box(2) > 0)


def test_share_of_keypoints_on_the_subject():
    masks = np.zeros((3, 33, 33))
    masks[0, 8:17, 8:17] = 1  # centres of pixels at 8/32 to 16/32
    masks[1, :, :4] = 0.6
    masks[2] = UNKNOWN
    at = np.array([[[0.3, 0.3], [0.5, 0.53], [0.6, 0.3]], [[-0.02, 0.5], [-0.2, 0.5], [0.1, 0.9]], [[0.5, 0.5]] * 3])
    score = evaluation.subject_share(at * 2 - 1, masks, within=0.04)
    assert score.details["keypoints"] == [1.0, 0.5, 0.5] and score.value == pytest.approx(4 / 6)
    near = np.array([[9 * 9 + 4 * 9], [33 * 5]]) / 33**2  # and the pixels next to it
    assert score.baseline == pytest.approx(near.mean()) and "2 images" in score.protocol
    with pytest.raises(ValueError, match="at least one mask"):
        evaluation.subject_share(at[2:] * 2 - 1, masks[2:])
    with pytest.raises(ValueError, match=r"masks must have shape \(3, S, S\)"):
        evaluation.subject_share(at * 2 - 1, masks[:2])


def test_figures_have_masks_that_evaluation_measures_by(tmp_path):
    make_figures(tmp_path / "plain", 12, size=64)
    make_figures(tmp_path / "set", 12, size=64, masks=tmp_path / "masks")
    assert all(p.read_bytes() == (tmp_path / "plain" / p.name).read_bytes() for p in (tmp_path / "set").glob("*.png"))
    images, labels = ImageFolder(tmp_path / "set", 64), load_labels(tmp_path / "set")
    masks = SubjectMasks(tmp_path / "masks", images)
    joints = evaluation.unit_joints(labels.keypoints, 64, images.original_sizes) * 2 - 1
    found = evaluation.subject_share(joints, torch.cat(list(masks)).numpy())
    assert found.value > 0.97 and 0.1 < found.baseline < 0.4
    metrics = evaluation.evaluate_model(Drawn(joints), images, labels, subjects=masks, masks=())
    assert metrics["subject_share"]["value"] > 0.95  # of the last images, by their own masks
    wrong = evaluation.evaluate_model(Drawn(joints[::-1]), images, labels, subjects=masks, masks=())
    assert wrong["subject_share"]["value"] < metrics["subject_share"]["value"]


class Drawn(torch.nn.Module):
    """Finds the joints of the images in the order of their numbers: the training images first."""

    links, iterative = torch.tensor([[0, 1]]), False

    def __init__(self, joints):
        super().__init__()
        self.joints, self.done = torch.from_numpy(np.ascontiguousarray(joints)), 0

    def link_weights(self):
        return torch.ones(1)

    def estimate(self, images, iterations=1):
        self.done += len(images)
        return self.joints[self.done - len(images) : self.done]


def test_a_run_with_masks_goes_on_and_says_what_they_are_good_for(tmp_path, capsys):
    pytest.importorskip("accelerate", reason="training needs the train extra")
    from tiny import run_steps

    make_figures(tmp_path / "set", 8, size=32, masks=tmp_path / "masks")
    masks = {"masks": str(tmp_path / "masks"), "model": DRAWN}
    run_steps(tmp_path / "set", tmp_path / "straight", 4, **masks)
    assert f"masks for 8 of 8 images in {tmp_path / 'masks'}" in capsys.readouterr().out
    run_steps(tmp_path / "set", tmp_path / "resumed", 3, **masks)
    run_steps(tmp_path / "set", tmp_path / "resumed", 4, resume=True, **masks)
    run_steps(tmp_path / "set", tmp_path / "without", 4, model=DRAWN)
    straight, resumed, without = (
        (tmp_path / run / "model/model.safetensors").read_bytes() for run in ("straight", "resumed", "without")
    )
    assert straight == resumed != without
    with pytest.raises(ValueError, match="masks need a model that is drawn to the subject"):
        run_steps(tmp_path / "set", tmp_path / "none", 2, masks=str(tmp_path / "masks"))
    assert not (tmp_path / "none").exists()
