"""Resized images kept on disk: the same images, found again, made anew when they change, and never half there."""

import errno
import os
import pickle
import shutil
from collections import namedtuple

import numpy as np
import pytest

pytest.importorskip("PIL", reason="images need the data extra")

import torch
from tiny import draw_images, run_steps

from ppl_fast.data import ClipFolder, ImageFolder, caches, image_set, open_set, training_loader
from ppl_fast.data.framing import views_of
from ppl_fast.options.footage import Framing
from ppl_fast.training.config import check_options

SIDE = 16


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Five images, one of them damaged where decoding alone can tell, and a cache of their own."""
    monkeypatch.setenv("PPL_FAST_CACHE", str(tmp_path / "cache"))
    files = draw_images(tmp_path / "images", 5)
    hurt = bytearray((files / "1.png").read_bytes())
    place = hurt.index(b"IDAT") + 8
    hurt[place : place + 40] = bytes(40)
    (files / "1.png").write_bytes(hurt)
    return files


@pytest.fixture
def decoded(monkeypatch):
    """Names of the images that were decoded, as it goes."""
    names, original = [], image_set.ImageSet._pixels
    monkeypatch.setattr(
        image_set.ImageSet, "_pixels", lambda self, name, box: names.append(name) or original(self, name, box)
    )
    return names


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "images").iterdir())


def test_images_are_those_of_memory_and_decoded_once(folder, tmp_path, decoded, capsys):
    memory = ImageFolder(folder, SIDE, cache="memory", max_bad_share=0.5)
    del decoded[:]
    first = ImageFolder(folder, SIDE, cache="disk", max_bad_share=0.5)
    assert sorted(decoded) == [f"{i}.png" for i in range(5)]
    (file,) = kept(tmp_path)
    assert f"resized images are kept in {file}: 0.0 MB" in capsys.readouterr().out
    second = ImageFolder(folder, SIDE, cache="disk", max_bad_share=0.5)
    for found in (first, second, pickle.loads(pickle.dumps(second))):
        assert found.paths == memory.paths and found.skipped == memory.skipped and len(found.skipped) == 1
        assert found.original_sizes == memory.original_sizes
        assert all(torch.equal(a, b) for a, b in zip(found, memory, strict=True))
    batches = [next(iter(training_loader(each, 4, seed=1, workers=1))) for each in (second, memory)]
    assert torch.equal(*batches) and len(decoded) == 5 and capsys.readouterr().out == ""
    assert kept(tmp_path) == [file]


def test_what_changes_the_pixels_makes_them_anew(folder, tmp_path, decoded):
    def opened(size=SIDE, **options):
        del decoded[:]
        return ImageFolder(folder, size, cache="disk", max_bad_share=0.5, **options)

    opened()
    for change in (
        lambda: os.utime(folder / "0.png", ns=(1, 1)),
        lambda: shutil.copy(folder / "2.png", folder / "0.png"),
        lambda: (folder / "3.png").unlink(),
    ):
        change()
        found = opened()
        assert decoded and len(kept(tmp_path)) == 1
        assert torch.equal(found[0], ImageFolder(folder, SIDE, max_bad_share=0.5)[0])
        assert opened() and not decoded
    boxes = {"squash": None} | {fit: views_of(Framing(fit), folder, [], {}) for fit in ("pad", "crop")}
    for views in boxes.values():
        expected = ImageFolder(folder, SIDE, cache="memory", max_bad_share=0.5, views=views)
        for _ in range(2):
            found = opened(views=views)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
            assert views is None or np.array_equal(found.boxes, expected.boxes)
        assert not decoded
    opened(8)
    assert len(kept(tmp_path)) == 4


@pytest.mark.parametrize(
    "hurt", [lambda raw: raw[:-5], lambda raw: raw[:-1] + b"?", lambda raw: b"", lambda raw: raw[9:]]
)
def test_a_damaged_file_is_made_anew(folder, tmp_path, hurt, decoded):
    ImageFolder(folder, SIDE, cache="disk", max_bad_share=0.5)
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(hurt(whole))
    del decoded[:]
    ImageFolder(folder, SIDE, cache="disk", max_bad_share=0.5)
    assert len(decoded) == 5 and file.read_bytes() == whole


def test_a_full_disk_is_a_sentence_and_work_goes_on(folder, tmp_path, monkeypatch, capsys, decoded):
    plain = ImageFolder(folder, SIDE, max_bad_share=0.5)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1000))
        found = ImageFolder(folder, SIDE, cache="disk", max_bad_share=0.5)
    said = capsys.readouterr().out
    assert said.startswith("note: resized images are not kept: ") and said.count("\n") == 1
    assert "it would take 0.0 MB, of which 0.0 MB are free" in said
    assert not decoded and kept(tmp_path) == [] and found.paths == plain.paths and torch.equal(found[0], plain[0])

    put, room = caches._Pen.put, [2]

    def full(self, row, pixels):
        room[0] -= 1
        self._file = self._file if room[0] >= 0 else Full()
        put(self, row, pixels)

    monkeypatch.setattr(caches._Pen, "put", full)
    found = ImageFolder(folder, SIDE, cache="disk", max_bad_share=0.5)
    assert "not kept" in (said := capsys.readouterr().out) and "No space left on device" in said
    assert kept(tmp_path) == [] and len(found) == 4 and torch.equal(found[0], plain[0])


class Full:
    """A file on a full disk."""

    def seek(self, place):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_one_that_was_replaced_meanwhile_is_told(folder, tmp_path):
    found = ImageFolder(folder, SIDE, cache="disk", max_bad_share=0.5)
    elsewhere = pickle.dumps(found)
    os.utime(folder / "0.png", ns=(1, 1))
    ImageFolder(folder, SIDE, cache="disk", max_bad_share=0.5)
    assert found[0].shape == (3, SIDE, SIDE)  # the file that it has mapped is still there for it
    with pytest.raises(ValueError, match="was replaced or removed meanwhile; start again"):
        pickle.loads(elsewhere)[0]


def test_shards_and_clips(folder, tmp_path, clips, decoded):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in (0, 2, 3):
            tar.add(folder / f"{number}.png", f"{number}.png")
    plain = [*open_set(tmp_path / "a.tar", SIDE).dataset]
    for count in (3, 0):
        del decoded[:]
        found = open_set(tmp_path / "a.tar", SIDE, cache="disk").dataset
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True)) and len(decoded) == count
    footage = ClipFolder(clips, SIDE, cache="disk")
    assert footage[0].shape == (3, SIDE, SIDE) and len(kept(tmp_path)) == 1
    assert "frames of videos lie on disk as it is, for this run" in footage.report()


def test_a_run_with_it_is_the_run_without(images, tmp_path, monkeypatch):
    pytest.importorskip("accelerate", reason="training needs the train extra")
    from ppl_fast.training import load_model

    monkeypatch.setenv("PPL_FAST_CACHE", str(tmp_path / "cache"))
    for cache in ("no", "disk"):
        run_steps(images, tmp_path / cache, 2, cache=cache)
    run_steps(images, tmp_path / "disk", 3, resume=True, cache="disk")
    run_steps(images, tmp_path / "no", 3, resume=True, cache="memory")
    plain, other = (load_model(tmp_path / name).state_dict() for name in ("no", "disk"))
    assert all(torch.equal(value, other[name]) for name, value in plain.items())
    assert check_options("run.yaml", {"train": {"cache": True}}, "ppl")["train"]["cache"] == "memory"  # of before
    assert check_options("run.yaml", {"train": {"cache": False}}, "ppl")["train"]["cache"] == "no"


def test_another_word_is_refused(folder):
    with pytest.raises(ValueError, match="ImageFolder: cache must be one of auto, no, memory, disk, got True"):
        ImageFolder(folder, SIDE, cache=True)
