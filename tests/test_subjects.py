"""Masks of where the subject is: read beside the images, learned from, and measured by."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")

from model_cases import pictures, tiny
from PIL import Image
from published_cases import SMALL_AUTOLINK

from ppl_fast import PPL, ExtendedAutoLink, evaluation
from ppl_fast.data import ImageFolder, load_labels, make_figures, moving, open_set, training_loader
from ppl_fast.data.subjects import UNKNOWN, MovingSubjects, SubjectMasks
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


def test_what_moves_before_a_static_camera(tmp_path):
    make_figures(tmp_path / "set/room", 60, size=64, masks=tmp_path / "masks/room")
    make_figures(tmp_path / "few", 3, size=64)
    (tmp_path / "few").rename(tmp_path / "set/few")
    images = ImageFolder(tmp_path / "set", 64)
    subjects, masks = MovingSubjects(images), SubjectMasks(tmp_path / "masks", images)
    known = [i for i in range(len(images)) if subjects[i].min() >= 0]
    assert subjects.known == len(known) >= 57 and f"{len(known)} of 63" in subjects.report
    assert "--crop moving" not in subjects.report
    assert all(torch.equal(subjects[i], torch.full((1, 64, 64), UNKNOWN)) for i in range(3))  # of too few images
    found, true = (torch.stack([each[i] for i in known]) >= 0.5 for each in (subjects, masks))
    assert ((found & true).sum() / (found | true).sum()) > 0.8
    with pytest.raises(ValueError, match="crops move with the animal"):
        MovingSubjects(open_set(tmp_path / "set/room", 64, framing=Framing(crop="moving")).dataset)
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match="nothing moves"):
        MovingSubjects(ImageFolder(tmp_path / "black.png", 64))


def test_the_background_is_what_frames_agree_on():
    """An animal that lies at one place in more than half of the frames, each time in another light, is none of it."""
    rng = np.random.default_rng(0)
    frames = np.full((30, 8, 8, 3), 100, np.uint8)
    frames[:17, 2:5, 2:5] = rng.integers(150, 255, (17, 3, 3, 1))
    frames = rng.permutation(frames)
    assert np.median(frames, axis=0)[3, 3, 0] > 140
    np.testing.assert_array_equal(moving.agreed(frames).pixels, 100)


def test_a_shadow_is_no_animal():
    still = moving.Background(np.full((32, 32, 3), (120, 100, 80), np.float32), 16.0)
    frame = still.pixels.astype(np.uint8).copy()
    frame[20:28, 4:30] = (90, 75, 60)
    frame[4:20, 14:18] = (60, 100, 140)
    with_shadow, without = (moving.animal(frame, still, 0.4, 1, shadow) for shadow in (True, False))
    assert with_shadow[24, 6] and with_shadow[10, 15] and with_shadow.sum() > 250
    assert not without[24, 6] and without[10, 15] and 60 <= without.sum() <= 110


def test_a_part_that_is_seen_apart_is_of_the_subject():
    """A paw in a mirror is; a speck is not, nor is either of the animal that a crop follows."""
    still = moving.Background(np.full((32, 32, 3), 60, np.float32), 16.0)
    frame = np.full((32, 32, 3), 60, np.uint8)
    frame[2:14, 4:24] = 200
    frame[20:26, 8:14] = 120
    frame[28:30, 28:30] = 90
    alone, all_parts = (moving.animal(frame, still, 0.4, 1, True, least_part=least) for least in (1.0, 0.05))
    assert alone[8, 10] and not alone[23, 10]
    assert all_parts[8, 10] and all_parts[23, 10] and not all_parts[28:30, 28:30].any()


def test_a_lamp_that_changes_is_no_noise():
    rng = np.random.default_rng(0)
    room = rng.integers(40, 200, (32, 32, 3))
    light = np.round(25 * np.sin(np.arange(40))).astype(int)
    frames = np.clip(room + light[:, None, None, None] + rng.integers(-1, 2, (40, 32, 32, 3)), 0, 255).astype(np.uint8)
    still = moving.agreed(frames)
    assert still.level == moving.LEAST_LEVEL and still.stays
    off = (still.pixels - room).reshape(-1, 3)
    assert np.ptp(off, axis=0).max() < 5  # the same moment of the lamp everywhere
    frames[7, 10:20, 10:20] = 255 - frames[7, 10:20, 10:20]
    assert moving.animal(frames[7], still, 0.4, 1).sum() >= 60 and moving.animal(frames[8], still, 0.4, 1) is None


@pytest.mark.parametrize("difficulty, told", [("lab", True), ("wild", False)])
def test_auto_draws_to_what_moves_where_the_background_stays(tmp_path, difficulty, told):
    pytest.importorskip("accelerate", reason="training needs the train extra")
    from ppl_fast.training.setup import subject_masks

    make_figures(tmp_path / "set", 40, size=64, difficulty=difficulty)
    images, config = ImageFolder(tmp_path / "set", 64), SimpleNamespace(masks="auto")
    drawn, undrawn = (SimpleNamespace(settings=SimpleNamespace(coverage_weight=weight)) for weight in (1.0, 0.0))
    masks, text = subject_masks(config, drawn, images)
    assert (masks is not None) == told and ("something moves in" if told else "nothing moves in") in text
    assert subject_masks(config, undrawn, images) == (None, "")
    crops = open_set(tmp_path / "set", 64, framing=Framing(crop="moving")).dataset if told else None
    assert crops is None or subject_masks(config, drawn, crops) == (None, "")
