"""Poses of several videos in formats of a single track: a file each, or none."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="images need the data extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")

from inference_cases import Finder
from model_cases import tiny
from test_exchange import read_dlc
from tiny import fails

from ppl_fast.cli import main
from ppl_fast.inference import collect, estimate, write
from ppl_fast.inference.exchange import files_of


def test_several_videos_have_a_file_each(clips, tmp_path):
    h5py = pytest.importorskip("h5py", reason="SLEAP's analysis files need the data extra")
    found = estimate(Finder(), clips)
    videos = [part.name for part in found.media.parts if part.unit == "frame"]
    assert len(videos) == 2
    write(found, dlc=tmp_path / "d" / "{}.csv", sleap=tmp_path / "{}_s.h5")
    stems = ["images", *(str(Path(name).with_suffix("")) for name in videos)]
    written = [path for path in (tmp_path / "d").rglob("*") if path.is_file()]
    assert sorted(written) == sorted(tmp_path / "d" / f"{stem}.csv" for stem in stems)
    for name, stem in zip(videos, stems[1:], strict=True):
        alone = collect(estimate(Finder(), clips / name))
        rows, values = read_dlc(tmp_path / "d" / f"{stem}.csv")
        assert rows == [str(frame) for frame in range(len(alone))]
        np.testing.assert_array_equal(values[..., :2], alone.keypoints)
        with h5py.File(tmp_path / f"{stem}_s.h5") as file:
            assert file["video_path"][()].decode().endswith(name)
            np.testing.assert_array_equal(file["tracks"][0].transpose(2, 1, 0), alone.keypoints)
    images, _ = read_dlc(tmp_path / "d" / "images.csv")
    assert len(images) == 14 and images[0].endswith((".png", ".jpg"))


def test_the_command_names_the_files(clips, tmp_path, capsys):
    tiny().save_pretrained(tmp_path / "run")
    assert (
        main(["estimate", *map(str, (tmp_path / "run", clips, "--out", tmp_path / "{}.csv", "--format", "dlc"))]) == 0
    )
    told = capsys.readouterr().out
    assert "5 keypoints to 3 files, one a video" in told and "{}" not in told and told.count(".csv") == 3
    with pytest.MonkeyPatch.context() as patch:  # it is refused before a video is opened
        patch.setattr("ppl_fast.inference.media.open_source", None)
        command = "estimate", tmp_path / "run", clips, "--out", tmp_path / "p.csv", "--format", "dlc"
        assert "got a folder of more; for a file each give a name with {}" in fails(capsys, *command)


def test_files_of_videos_that_share_a_name():
    videos = ["a/walk.mp4", "a/walk.avi", "b/walk.mp4", "images.mp4"]
    found = files_of(Path("out/{}.csv"), videos)
    assert [str(path) for path in found.values()] == [
        "out/a/walk.mp4.csv", "out/a/walk.avi.csv", "out/b/walk.csv", "out/images.mp4.csv", "out/images.csv",
    ]  # fmt: skip


def test_two_videos_cannot_have_one_file():
    with pytest.raises(ValueError, match=r"a\.mp4 and a\.mp4\.mkv would both be written to a\.mp4\.csv"):
        files_of(Path("{}.csv"), ["a.mp4", "a.avi", "a.mp4.mkv"])


def test_nothing_is_left_of_several_where_one_fails(clips, tmp_path):
    class Failing(Finder):
        def estimate(self, images, iterations=1):
            if len(images) == 5:  # frames of the last video
                raise RuntimeError("out of memory")
            return super().estimate(images)

    with pytest.raises(RuntimeError, match="out of memory"):
        write(estimate(Failing(), clips), dlc=tmp_path / "{}.csv")
    assert [*tmp_path.iterdir()] == []
