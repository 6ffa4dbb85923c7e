"""Large runs: reading, model and writing at once, memory that does not grow, and going on after an interruption."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")
pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

from inference_cases import KEYPOINTS, Counted, Finder, S
from PIL import Image
from tiny import fails, run_steps
from video_files import cut, encode

from ppl_fast.cli import main
from ppl_fast.inference import FORMATS, collect, estimate, write
from ppl_fast.inference.beside import Waits, ahead, behind
from ppl_fast.inference.keeping import JOB
from ppl_fast.models import KeypointModel

COLUMNS = ("names", "frames", "times", "keypoints", "normalised", "sizes", "confidence", "filled")


@pytest.fixture(scope="module")
def run_of_steps(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    run_steps(images, out, 3)
    return out


def same(one, other):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def threads():
    return [each.name for each in threading.enumerate() if each.name.startswith("ppl_fast")]


def test_what_is_made_ahead_comes_in_order_and_no_further_than_asked_for():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    found = ahead(items(), 3, Waits())
    assert not made
    for number in range(10):
        assert next(found) == number
        time.sleep(0.01)
        assert len(made) <= number + 1 + 3
    found.close()
    assert len(made) < 20 and not threads()
    assert list(ahead(range(5), 2, Waits())) == list(ahead(range(5), 0, Waits())) == list(range(5))


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield 1
        raise ValueError("damaged")

    found = ahead(items(), 4, Waits())
    assert next(found) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(found)
    assert not threads()


def test_what_is_handed_over_is_taken_in_order_and_its_errors_come_back():
    taken = []
    with behind(taken.append, 2, Waits()) as hand:
        for number in range(10):
            hand(number)
    assert taken == list(range(10))

    def full(number):
        taken.append(number)
        raise OSError("disk full")

    taken.clear()
    with pytest.raises(OSError, match="disk full"), behind(full, 2, Waits()) as hand:
        for number in range(100):
            hand(number)
    assert taken == [0] and not threads()

    taken.clear()
    with pytest.raises(KeyboardInterrupt), behind(lambda item: (time.sleep(0.05), taken.append(item)), 3, Waits()) as h:
        h(0), h(1), h(2)
        raise KeyboardInterrupt
    assert len(taken) <= 1 and not threads()  # what waits is dropped


def test_reading_model_and_writing_go_on_at_once(tmp_path, monkeypatch):
    """Each sleeps, so that one after the other takes three times as long; which time it is shows in the waits."""
    pause, count = 0.03, 12

    class Slow(Counted):
        def __getitem__(self, index):
            time.sleep(pause)
            return super().__getitem__(index)

    class Model(Finder):
        def estimate(self, images, iterations=1):
            time.sleep(pause)
            return super().estimate(images, iterations)

    def slow(path, schema):
        return nullcontext(lambda poses: time.sleep(pause))

    monkeypatch.setitem(FORMATS, "slow", slow)
    taken, waits = {}, {}
    for depth in (0, 2):
        poses, begun = estimate(Model(), Slow(count), batch_size=1, depth=depth), time.perf_counter()
        assert write(poses, slow=tmp_path / "x") == count
        taken[depth], waits[depth] = time.perf_counter() - begun, poses.waits
    assert taken[0] >= 3 * count * pause
    assert taken[2] < 0.6 * taken[0]
    assert waits[0].reading > 0.25 * waits[0].total and waits[0].writing > 0.25 * waits[0].total
    assert waits[2].reading + waits[2].writing < 0.5 * (waits[0].reading + waits[0].writing)


@pytest.mark.parametrize("depth", [0, 3])
def test_poses_are_the_same_however_far_ahead(clips, tmp_path, depth):
    outputs = {"csv": tmp_path / "p.csv", "coco": tmp_path / "p.json", "overlay": tmp_path / "drawn"}
    options = {"batch_size": 4, "confidence": False}
    same(collect(estimate(Finder(), clips, depth=depth, **options)), collect(estimate(Finder(), clips, **options)))
    assert write(estimate(Finder(), clips, depth=depth, **options), **outputs) == 26
    assert sorted(os.listdir(tmp_path)) == ["drawn", "p.csv", "p.json"] and not threads()


@pytest.mark.parametrize("count", [100, 400])
def test_memory_does_not_grow_with_the_number_of_images(count, tmp_path, monkeypatch):
    """By what is alive of the batches: as many for four times the images."""
    depth, alive, most = 2, weakref.WeakSet(), 0

    class Model(Finder):
        def estimate(self, images, iterations=1):
            nonlocal most
            alive.add(images.untyped_storage())
            most = max(most, len(alive))
            return super().estimate(images, iterations)

    dataset, poses_alive, most_poses = Counted(count), weakref.WeakSet(), 0
    poses = estimate(Model(), dataset, batch_size=10, depth=depth)

    def counting(path, schema):
        def take(batch):
            nonlocal most_poses
            poses_alive.add(batch)
            most_poses = max(most_poses, len(poses_alive))

        return nullcontext(take)

    monkeypatch.setitem(FORMATS, "counting", counting)
    assert write(poses, counting=tmp_path / "x", csv=tmp_path / "p.csv") == count == dataset.loaded
    assert 1 <= most <= 2 * depth + 3 and 1 <= most_poses <= depth + 2


class Interrupted(KeypointModel):
    """Mean colours, by a model that has evidence; ends the work, as Ctrl-C does, after so many batches."""

    def __init__(self, batches=None, bias=0.0):
        super().__init__(num_keypoints=KEYPOINTS, image_size=S)
        del self.links
        self.register_buffer("bias", torch.tensor(bias))
        self.register_buffer("links", Finder.links)
        self.left, self.batches = batches, 0

    def estimate_rounds(self, images, iterations=1, visible=None):
        if self.batches == self.left:
            raise KeyboardInterrupt
        self.batches += 1
        return [(Finder.estimate(self, images) + self.bias, images)]

    def estimate(self, images, iterations=1, visible=None):
        return self.estimate_rounds(images)[0][0]

    def link_weights(self):
        return Finder().link_weights()


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
def test_the_command_goes_on_after_it_was_killed(run_of_steps, images, tmp_path, capsys):
    out, folder = tmp_path / "p.parquet", tmp_path / "p.parquet.parts"
    arguments = [
        "estimate",
        run_of_steps,
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


def test_parquet_has_what_csv_has(clips, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the parquet extra")
    monkeypatch.setattr("ppl_fast.inference.tables.GROUP", 10)
    options = {"batch_size": 4, "confidence": True, "smooth": True}
    outputs = {"csv": tmp_path / "p.csv", "parquet": tmp_path / "p.parquet"}
    assert write(estimate(Interrupted(), clips, **options), **outputs) == 26
    header, *rows = csv.reader(outputs["csv"].open())
    file = parquet.ParquetFile(outputs["parquet"])
    assert file.schema_arrow.names == header and file.num_row_groups == 3
    table = file.read().to_pydict()
    for number, name in enumerate(header):
        for row, value in zip(rows, table[name], strict=True):
            if isinstance(value, str) or value is None:
                assert row[number] == (value or "")
            else:
                assert float(row[number]) == pytest.approx(float(value), abs=6e-4)
    about = json.loads(file.schema_arrow.metadata[b"ppl_fast"])
    assert about == {"links": [[0, 1], [1, 2]], "weights": [1.0, 0.5]}
    with pytest.raises(ValueError, match="parquet writes PARQUET, for files that end in .parquet"):
        write(estimate(Finder(), clips), parquet=tmp_path / "p.csv")
