"""Going on where an estimation was interrupted."""

import json
import os
import re
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")
pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

from inference_cases import Finder, Interrupted, S, same, threads
from PIL import Image
from tiny import fails
from video_files import cut, encode

from ppl_fast.cli import main
from ppl_fast.inference import collect, estimate, write
from ppl_fast.inference.keeping import JOB


@pytest.fixture
def damaged(clips, tmp_path):
    """Clips, among them an image that proves damaged when it is decoded, and a video that breaks off."""
    folder = shutil.copytree(clips, tmp_path / "damaged")
    victim = sorted(folder.rglob("*.png"))[1]
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(victim)
    whole = bytearray(victim.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    victim.write_bytes(whole)
    cut(encode(folder / "longer.mkv", count=50), 0.6)
    return folder


@pytest.mark.parametrize("seconds", [0.0, 30.0])  # a file a batch, or one when it ends
@pytest.mark.parametrize("options", [{"depth": 0}, {"depth": 2}, {"depth": 2, "smooth": True}])
def test_what_was_interrupted_goes_on_where_it_stopped(damaged, tmp_path, monkeypatch, options, seconds):
    monkeypatch.setattr("ppl_fast.inference.keeping.SECONDS", seconds)
    options = {"batch_size": 4, "max_bad_share": 0.4, **options}
    every = 2 if "smooth" in options else 1  # passes a batch
    whole = estimate(Interrupted(), damaged, **options)
    expected, keep = collect(whole), tmp_path / "kept"
    assert [name.rpartition("/")[2] for name, _ in whole.media.skipped][0].endswith((".png", ".mkv"))
    assert len(whole.media.skipped) == 2
    for _ in range(5):  # two batches further each time
        poses = estimate(model := Interrupted(2 * every), damaged, keep=keep, **options)
        with pytest.raises(KeyboardInterrupt):
            write(poses, csv=tmp_path / "p.csv")
        assert model.batches == 2 * every and not (tmp_path / "p.csv").exists() and not threads()
    poses = estimate(model := Interrupted(), damaged, keep=keep, **options)
    same(collect(poses), expected)
    assert poses.media.skipped == whole.media.skipped
    assert model.batches == every * (-(-14 // 4) + 2 + 2 + -(-sum(n == "longer.mkv" for n in expected.names) // 4) - 10)
    again = estimate(Interrupted(0), damaged, keep=keep, **options)  # all is kept: the model is not asked
    write(again, csv=tmp_path / "again.csv")
    write(estimate(Interrupted(), damaged, **options), csv=tmp_path / "whole.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert again.media.skipped == whole.media.skipped


def test_poses_that_wait_hold_no_pictures(images, tmp_path):
    """A whole image is megabytes, and thousands of poses wait for the next file."""
    pictures, alive = [], []
    for poses in estimate(Finder(), images, batch_size=2, keep=tmp_path / "kept", depth=0):
        pictures.append(weakref.ref(poses.picture))
        assert poses.image(0) is not None
        alive.append(sum(each() is not None for each in pictures))
    assert len(pictures) > 4 and max(alive) <= 2


def test_poses_of_another_job_are_refused(images, tmp_path):
    folder, keep = shutil.copytree(images, tmp_path / "images"), tmp_path / "kept"
    files = sorted(folder.rglob("*.png"))

    def start(model=None, batch_size=4, **options):
        return estimate(model or Interrupted(), folder, keep=keep, batch_size=batch_size, **options)

    expected = collect(start())
    same(collect(start(Interrupted(0))), expected)
    for arguments, sentence in (
        ({"model": Interrupted(bias=0.1)}, "poses by another model;"),
        ({"batch_size": 5}, "poses by batch size 4, now 5; remove"),
        ({"confidence": True}, "poses by confidence False, now True"),
        ({"masks": (255, 0, 255)}, r"poses by masks None, now \(255, 0, 255\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            start(**arguments)
    os.utime(files[0], (1, 1))
    with pytest.raises(ValueError, match="other files, or files that have changed since; remove the folder"):
        start()
    shutil.rmtree(keep)
    start()
    files[1].unlink()
    with pytest.raises(ValueError, match="other files"):
        start()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"mine must be missing, empty or hold poses that were kept.*has no job.json"):
        estimate(Interrupted(), folder, keep=tmp_path / "mine")
    with pytest.raises(TypeError, match="poses can be kept of files alone"):
        estimate(Finder(), torch.zeros(2, 3, S, S), keep=tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["images", "kept", "mine"]


def test_kept_files_that_are_damaged_or_missing_are_named(images, tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_fast.inference.keeping.SECONDS", 0.0)
    options = {"keep": tmp_path / "kept", "batch_size": 4}
    collect(estimate(Interrupted(), images, **options))
    first, second, *_ = sorted((tmp_path / "kept").glob("*.npz"))
    assert json.loads((tmp_path / "kept" / JOB).read_text())["batch size"] == "4"
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{second.name} holds no poses that were kept"):
        collect(estimate(Interrupted(), images, **options))
    second.unlink()
    with pytest.raises(ValueError, match="000000-000000000008.npz should begin at image 4"):
        collect(estimate(Interrupted(), images, **options))
    first.unlink()


@pytest.mark.slow
def test_the_command_goes_on_after_it_was_killed(run, images, tmp_path, capsys):
    out, folder = tmp_path / "p.parquet", tmp_path / "p.parquet.parts"
    arguments = [
        "estimate",
        run,
        images,
        "--format",
        "parquet",
        "--out",
        out,
        "--batch-size",
        1,
        "--device",
        "cpu",
    ]
    assert main([str(each) for each in arguments]) == 0
    whole, said = out.read_bytes(), capsys.readouterr().out
    assert re.search(r"of \d+\.\d s the model waited \d+% for images and \d+% for files", said)
    out.unlink()
    script = f"""
import os, ppl_fast.inference.keeping as keeping
from ppl_fast.cli import main
keeping.SECONDS, write = 0.0, keeping.Kept._write
def killed(self, part, start, *rest):
    write(self, part, start, *rest)
    start == 5 and os.kill(os.getpid(), 9)
keeping.Kept._write = killed
main({[str(each) for each in [*arguments, "--resume"]]!r})
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert not out.exists() and len(list(folder.glob("*.npz"))) == 6
    assert main([str(each) for each in [*arguments, "--resume"]]) == 0
    assert out.read_bytes() == whole and not folder.exists()
    assert "--overlay needs" in fails(capsys, *arguments, "--resume", "--overlay", tmp_path / "o")
