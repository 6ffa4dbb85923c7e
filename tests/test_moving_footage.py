"""Looking for what moves in footage: how far it is, and stills, which do not show which end of the animal leads."""

import errno
import io
import re

import numpy as np
import pytest

pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("scipy", reason="finding what moves needs the data extra")

from crop_cases import SIZE, body_of, drawn, film, moving_views, path
from label_cases import csv_text
from PIL import Image

from ppl_fast.data import open_set
from ppl_fast.data.mask import shares_after_resizing
from ppl_fast.data.moving_subjects import MovingSubjects
from ppl_fast.options.footage import Framing


def test_looking_for_what_moves_shows_how_far_it_is(tmp_path, monkeypatch, capsys):
    """Each video is read twice, which takes minutes where it is long."""
    film(tmp_path / "short.mp4", 12, range(0))
    monkeypatch.setattr("ppl_fast.data.moving_footage.no_bar", lambda: False)
    moving_views(tmp_path)
    shown = capsys.readouterr().err
    assert "background of short.mp4" in shown and "what moves in short.mp4" in shown and "/12 [" in shown


@pytest.mark.slow
def test_labelled_frames_are_turned_as_their_frames_in_the_video(tmp_path):
    """A still does not show which end leads; half of them were turned the other way, and joints could not be named."""
    (tmp_path / "videos").mkdir()
    folder = tmp_path / "labeled-data" / "walk"
    folder.mkdir(parents=True)
    film(tmp_path / "videos" / "walk.mp4", 80)
    numbers = range(2, 78, 8)
    rows = {}
    for number in numbers:
        Image.fromarray(drawn(*path(number, 80), number)).save(folder / f"img{number:03d}.png")
        rows[f"labeled-data/walk/img{number:03d}.png"] = [*path(number, 80)[0], 4, 4]
    Image.fromarray(drawn(*path(30, 80))).save(folder / "img000.png")  # at another place than frame 0
    Image.fromarray(drawn(*path(5, 80))).save(folder / "copy.png")
    (folder / "CollectedData_me.csv").write_text(csv_text(rows))
    Image.fromarray(drawn(None, 0.0)).save(folder / "img079.png")  # nothing there
    assert not any("which end" in line for line in moving_views(tmp_path).report)
    trained = moving_views(tmp_path, turn=True)
    assert any("which end of the animal leads is unknown in 2 images" in line for line in trained.report)
    labelled = open_set(tmp_path, 32, split="fit", framing=Framing(crop="moving", turn=True)).dataset.views
    for views in (trained, labelled):
        for number in numbers:
            box = views.box(f"labeled-data/walk/img{number:03d}.png", SIZE)
            assert np.cos(box[4] - path(number, 80)[1]) > 0.9


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.slow
def test_what_moves_in_crops_is_told_in_the_whole_images_around_them(tmp_path, turn):
    film(tmp_path / "walk.mp4", 40)
    (tmp_path / "walk").mkdir()
    for number in range(0, 40, 4):
        Image.fromarray(drawn(*path(number, 40))).save(tmp_path / f"walk/img{number:02d}.png")
    images = open_set(tmp_path, 64, framing=Framing(crop="moving", turn=turn)).dataset
    subjects = MovingSubjects(images)
    assert subjects.report.startswith("something moves in 50 of 50 images") and len(images) == 50
    for subject, name, box in zip(subjects, images.paths, images.boxes, strict=False):
        number = int(re.search(r"\d+$", name.removesuffix(".png"))[0])
        true = shares_after_resizing(body_of(*path(number, 40))[0], 64, box) >= 0.5
        assert true.sum() > 100 and ((subject >= 0.5) & true).sum() / ((subject >= 0.5) | true).sum() > 0.75, name


def test_no_room_for_whole_images_is_a_sentence(tmp_path, monkeypatch):
    film(tmp_path / "walk.mp4", 12)
    images = open_set(tmp_path, 16, framing=Framing(crop="moving")).dataset

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    with pytest.raises(OSError, match=r"cannot be kept in .*: No space left on device; TMPDIR can name another place"):
        MovingSubjects(images)
