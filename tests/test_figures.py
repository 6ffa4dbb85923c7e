"""Drawn figures: deterministic, correctly labelled, varied as promised, and never half written."""

import numpy as np
import pytest
from PIL import Image

from ppl_fast.data import ImageFolder, load_labels, make_figures
from ppl_fast.data.drawing import OVERSAMPLING, Canvas, Paint
from ppl_fast.data.figures import DIFFICULTIES, KINDS, Artist


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def images(count=12, size=32, seed=0, kind="person", difficulty="lab", split="train") -> np.ndarray:
    artist = Artist(size, seed, kind, difficulty, split)
    return np.stack([artist.draw(i)[0] for i in range(count)])


def joints(count=12, size=32, seed=0, kind="person", difficulty="lab", split="train") -> np.ndarray:
    artist = Artist(size, seed, kind, difficulty, split)
    return np.stack([artist.draw(i)[1] for i in range(count)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_folder_holds_images_and_labels(tmp_path, kind, difficulty):
    returned = make_figures(tmp_path / "set", 6, size=40, seed=3, kind=kind, difficulty=difficulty)
    folder, labels = ImageFolder(tmp_path / "set", 40), load_labels(tmp_path / "set")
    assert folder.paths == labels.files and folder.original_sizes == [(40, 40)] * 6
    assert not folder.ignored and not folder.skipped
    assert np.array_equal(labels.keypoints, returned.keypoints) and labels.visible.all()
    assert labels.keypoints.shape == (6, 15, 2) and len(labels.names) == 15
    # The bones join all joints into one tree.
    assert len(labels.skeleton) == 14 and len({joint for bone in labels.skeleton for joint in bone}) == 15
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_same_arguments_same_bytes(tmp_path):
    for name, count in (("a", 6), ("b", 6), ("longer", 9)):
        make_figures(tmp_path / name, count, size=32, seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    longer = contents(tmp_path / "longer")
    assert all(longer[name] == data for name, data in contents(tmp_path / "a").items() if name.endswith(".png"))


@pytest.mark.parametrize("kind", KINDS)
def test_splits_share_the_look_and_not_the_poses(kind):
    train, test = (Artist(32, 0, kind, "studio", split) for split in ("train", "test"))
    assert all(np.array_equal(a, b) for a, b in zip(train.scenes, test.scenes, strict=True))
    assert repr(train.outfits) == repr(test.outfits) and len(train.outfits) == 8 and len(train.scenes) == 6
    first, second = joints(kind=kind), joints(kind=kind, split="test")
    assert not (np.abs(first[:, None] - second[None]).max((2, 3)) < 1).any()


def test_another_seed_is_another_set():
    assert repr(Artist(32, 0, "person", "lab", "train").outfits) != repr(
        Artist(32, 1, "person", "lab", "train").outfits
    )
    assert not np.array_equal(joints(seed=0), joints(seed=1))


def test_poses_depend_on_neither_difficulty_nor_size():
    assert np.array_equal(joints(difficulty="lab"), joints(difficulty="wild"))
    assert np.allclose((joints(size=32) + 0.5) / 32, (joints(size=50) + 0.5) / 50)


@pytest.mark.parametrize("kind", KINDS)
def test_joints_lie_on_the_figure(kind):
    """Every joint is on a painted cell, so labels and drawing cannot drift apart."""
    artist = Artist(64, 0, kind, "wild", "train")
    for i in range(40):
        points = (artist.draw(i)[1] + 0.5) / 64
        assert (points > 0.04).all() and (points < 0.96).all()
        canvas = Canvas(64)
        rng = np.random.default_rng(i)
        KINDS[kind].draw(canvas, points, KINDS[kind].outfit(rng), 1.0, rng)
        column, row = (points * canvas.cells).astype(int).T
        assert canvas.covered[row * canvas.cells + column].all()


def test_backgrounds_by_difficulty():
    """A corner that no figure reaches: one value in the lab, new ones in the wild."""
    corner = {name: images(30, difficulty=name)[:, 0, 0] for name in DIFFICULTIES}
    distinct = {name: len(np.unique(values, axis=0)) for name, values in corner.items()}
    assert distinct["lab"] == 1
    assert 6 <= distinct["studio"] < 30  # six scenes, each shifted
    assert distinct["wild"] == 30


@pytest.mark.slow
def test_poses_vary_like_the_measured_set():
    """Errors are read against the mean pose, so its own error stays near 0.087 of the image size."""
    poses = joints(1000, size=32) / 32
    error = np.linalg.norm(poses - poses.mean(0), axis=-1).mean(0)
    assert 0.082 < error.mean() < 0.092
    hand, hip = (error[KINDS["person"].NAMES.index(name)] for name in ("left_hand", "left_hip"))
    assert hand > 0.15 and hip < 0.06


def test_edges_are_smooth_and_areas_right():
    canvas = Canvas(64)
    canvas.dot((0.5, 0.5), 0.25, Paint(np.ones(3, dtype=np.float32)))
    assert canvas.covered.mean() == pytest.approx(np.pi / 16, rel=0.01)
    coverage = canvas.over(np.zeros((64, 64, 3), dtype=np.float32))[..., 0]
    assert len(np.unique(coverage)) > OVERSAMPLING**2
    rows, columns = np.nonzero(coverage)
    assert rows.mean() == pytest.approx(31.5, abs=0.01) and columns.mean() == pytest.approx(31.5, abs=0.01)


def test_limb_is_lit_from_the_light():
    canvas = Canvas(64, light=(-1, 0, 0.2))
    canvas.part((0.5, 0.2), (0.5, 0.8), (0.1, 0.1), Paint(np.ones(3, dtype=np.float32)))
    row = canvas.over(np.zeros((64, 64, 3), dtype=np.float32))[32, :, 0].astype(int)
    assert row[27] > row[32] > row[36] > 0


def test_patterns_run_their_way():
    black, white = np.zeros(3, dtype=np.float32), np.ones(3, dtype=np.float32)
    place = np.linspace(-0.2, 0.2, 50, dtype=np.float32)
    still = np.zeros_like(place)

    def changes(pattern, across, along):
        return len(np.unique(Paint(black, white, pattern).at(across, along), axis=0)) > 1

    assert changes("hoops", still, place) and not changes("hoops", place, still)
    assert changes("stripes", place, still) and not changes("stripes", still, place)
    for pattern in ("checks", "dots", "patches"):
        assert changes(pattern, still + 0.025, place) and changes(pattern, place, still + 0.025)


@pytest.mark.parametrize("place", [(-1, 0.5), (0.5, -1), (2, 0.5), (0.5, 2), (-3, -3)])
def test_parts_outside_paint_nothing(place):
    canvas = Canvas(32)
    canvas.part(place, (place[0], place[1] + 0.1), (0.05, 0.05), Paint(np.ones(3, dtype=np.float32)))
    assert not canvas.covered.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count must be an integer of at least 1, got 0"),
        ({"count": 1.5}, "count must be an integer"),
        ({"size": 31}, "size must be an integer of at least 32, got 31"),
        ({"seed": -1}, "seed must be"),
        ({"kind": "plant"}, "kind must be one of person, animal, got 'plant'"),
        ({"difficulty": "hard"}, "difficulty must be one of lab, studio, wild, got 'hard'"),
        ({"split": "dev"}, "split must be one of train, validation, test, got 'dev'"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_figures(tmp_path / "set", **({"count": 2} | arguments))
    assert not any(tmp_path.iterdir())


def test_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ValueError, match="must be new or an empty folder"):
            make_figures(place, 2)
    (tmp_path / "empty").mkdir()
    make_figures(tmp_path / "empty", 2, size=32)
    assert len(contents(tmp_path / "empty")) == 3


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    saved = []

    def save(self, path, *args, **kwargs):
        saved.append(path)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(KeyboardInterrupt):
        make_figures(tmp_path / "set", 5, size=32)
    assert len(saved) == 3 and not any(tmp_path.iterdir())
