"""Shards, tars and Parquet here and elsewhere, give what a folder of the same images gives, bit for bit."""

import io
import os
import pickle
import sys
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fsspec", reason="shards need the shards extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

import fsspec
import torch
from ranks import together
from test_training_processes import watched
from tiny import draw_images, fails, run_steps

from ppl_fast.cli import main
from ppl_fast.data import ImageFolder, open_set, training_loader
from ppl_fast.data.shards import find_shards, index, storage, tables, tars
from ppl_fast.data.shards.names import Names
from ppl_fast.inference import collect, estimate
from ppl_fast.training import load_model

SIDE = 32
MEMORY = "memory://bucket"


def write_tar(file, contents: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_parquet(path: Path, contents: list[bytes | None], plain: bool = False, rows: int = 3) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs the shards extra")
    from pyarrow import parquet

    images = contents if plain else [each and {"bytes": each, "path": f"{i}.png"} for i, each in enumerate(contents)]
    kind = pa.binary() if plain else pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"label": [*range(len(contents))], "image": pa.array(images, kind)})
    parquet.write_table(table, path, row_group_size=rows)


@pytest.fixture(scope="module")
def contents(images):
    return {path.name: path.read_bytes() for path in sorted(images.iterdir())}


@pytest.fixture(scope="module")
def sources(contents, tmp_path_factory):
    """The ten images as two tars, as two Parquet files, and as tars at an address."""
    folder, halves = tmp_path_factory.mktemp("shards"), [dict(islice(contents.items(), i, i + 5)) for i in (0, 5)]
    for name in ("tars", "tables"):
        (folder / name).mkdir()
    for number, half in enumerate(halves):
        with open(folder / "tars" / f"train-{number:04d}.tar", "wb") as file:
            write_tar(file, half)
        with fsspec.open(f"{MEMORY}/train-{number:04d}.tar", "wb") as file:
            write_tar(file, half)
        write_parquet(folder / "tables" / f"train-{number:04d}.parquet", [*half.values()], plain=number == 1)
    return {
        "tars": str(folder / "tars"),
        "pattern": str(folder / "tars" / "train-{0000..0001}.tar"),
        "tables": str(folder / "tables"),
        "address": MEMORY,
    }


@pytest.mark.parametrize("kind", ["tars", "pattern", "tables", "address"])
def test_images_and_order_are_those_of_the_folder(kind, images, sources):
    folder, shards = ImageFolder(images, SIDE), open_set(sources[kind], SIDE).dataset
    assert len(shards) == 10 and shards.original_sizes == folder.original_sizes and not shards.skipped
    assert "10 images in" in shards.report() and "(2 shards)" in shards.report()
    assert shards.original(7).tobytes() == folder.original(7).tobytes()
    for given in (shards, pickle.loads(pickle.dumps(shards))):
        for expected, found in zip(*(loaded(each, 2) for each in (folder, given)), strict=True):
            assert torch.equal(expected, found)


def loaded(dataset, workers):
    return [*islice(training_loader(dataset, 4, seed=3, start_step=5, workers=workers), 3)]


def test_names_are_shard_and_key(sources, tmp_path):
    assert open_set(sources["pattern"], SIDE).dataset.paths[6] == "train-0001.tar/6"
    assert open_set(sources["tables"], SIDE).dataset.paths[6] == "train-0001.parquet/000001"
    given = ["a/1.jpg", "a/1.mask.png", "b.left.png", "b.right.png", "2.jpg", "2.png", "3.jpg", "3.jpg"]
    assert tars.keys(given) == ["a/1", None, "b.left", "b.right", "2.jpg", "2.png", None, "3.jpg"]
    assert [tars.is_image(name) for name in ("a/1.JPG", "a/._1.jpg", "1.json")] == [True, False, False]
    assert storage._alternatives("{a,b}/{08..10}") == ["a/08", "a/09", "a/10", "b/08", "b/09", "b/10"]
    assert storage._alternatives("{3..1}") == ["3", "2", "1"]
    names = ["a.tar/1", "a.tar/é\udcff", "b.tar/1"]
    keys = [os.fsencode(name.partition("/")[2]) for name in names]
    held = Names(["a.tar", "b.tar"], [2, 1], b"".join(keys), np.cumsum([*map(len, keys)]))
    assert [*held] == names == [held[i] for i in range(3)] and [held.row(name) for name in names] == [0, 1, 2]
    with pytest.raises(KeyError):
        held.row("a.tar/2")
    many = Names(["a.tar"], [10_000], b"000000123" * 10_000, np.arange(1, 10_001) * 9)
    assert len(pickle.dumps(many)) < 30 * len(many)


def test_a_run_on_shards_is_the_run_on_the_folder_and_resumes_as_it(images, sources, tmp_path):
    runs = {"folder": images, "tars": sources["tars"], "address": sources["address"]}
    for name, source in runs.items():
        run_steps(source, tmp_path / name, 2 if name == "address" else 4)
    run_steps(sources["address"], tmp_path / "address", 4, resume=True)
    weights = {name: load_model(tmp_path / name).state_dict() for name in runs}
    for name in ("tars", "address"):
        assert all(torch.equal(value, weights[name][key]) for key, value in weights["folder"].items())


def test_resuming_reads_its_own_images_alone(sources, monkeypatch):
    shards, read = open_set(sources["tars"], SIDE).dataset, []
    monkeypatch.setattr(storage.Shard, "read", spying(storage.Shard.read, read))
    next(iter(training_loader(shards, 4, seed=0, start_step=1000)))
    assert len(read) == 4


def spying(function, calls):
    def spied(self, *arguments):
        calls.append(arguments)
        return function(self, *arguments)

    return spied


def test_a_batch_is_asked_for_at_once_where_storage_is_far(sources, monkeypatch):
    memory, asked, single = type(fsspec.filesystem("memory")), [], []
    near = loaded(open_set(MEMORY, SIDE).dataset, 0)
    monkeypatch.setattr(memory, "async_impl", True)
    monkeypatch.setattr(storage.Shard, "read", spying(storage.Shard.read, single))
    ranges = memory.cat_ranges
    monkeypatch.setattr(memory, "cat_ranges", lambda self, *a, **b: asked.append(len(a[0])) or ranges(self, *a, **b))
    far = open_set(MEMORY, SIDE).dataset
    assert all(map(torch.equal, loaded(far, 0), near)) and asked == [4, 4, 4] and not single
    monkeypatch.setattr(memory, "cat_ranges", lambda self, paths, *_, **__: [OSError("busy")] * len(paths))
    assert all(map(torch.equal, loaded(far, 0), near)) and len(single) == 12  # each by itself, which tells more


@pytest.mark.slow
def test_two_processes_share_the_images_of_one(sources, tmp_path):
    shares = together(tmp_path / "two", watched, sources["tars"], tmp_path / "two" / "run", 3)
    alone = watched(0, sources["tars"], tmp_path / "one", 3)
    for step, whole in enumerate(alone):
        first, second = (share[step]["images"] for share in shares)
        assert len(first) == len(second) == 2 and first | second == whole["images"]


def test_an_index_is_made_once_and_anew_when_the_shard_changes(contents, sources, tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_FAST_CACHE", str(tmp_path / "cache"))
    made, original = [], index._made
    monkeypatch.setattr(index, "_made", lambda shard: made.append(shard.name) or original(shard))
    shard, images = tmp_path / "a.tar", [*contents.items()]
    for count, expected in ((4, 1), (4, 1), (6, 2)):
        if not shard.exists() or count == 6:
            with open(shard, "wb") as file:
                write_tar(file, dict(images[:count]))
        assert len(open_set(shard, SIDE).dataset) == count and len(made) == expected
    (kept,) = (tmp_path / "cache" / "shards").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    assert len(open_set(shard, SIDE).dataset) == 6 and len(made) == 3
    monkeypatch.setenv("PPL_FAST_CACHE", str(kept))  # a file, in which nothing can be kept
    assert len(open_set(shard, SIDE).dataset) == 6 and len(made) == 4


def test_damaged_members_are_skipped_as_damaged_images(contents, tmp_path):
    hurt = {name: content[:60] if name == "3.png" else content for name, content in contents.items()}
    with open(tmp_path / "a.tar", "wb") as file:
        write_tar(file, hurt | {"3.json": b"{}"})
    with pytest.raises(ValueError, match=r"1 of 10 images in .*a.tar \(1 shard\) are unusable.*a.tar/3 "):
        open_set(tmp_path / "a.tar", SIDE, max_bad_share=0.05)
    shards = open_set(tmp_path / "a.tar", SIDE).dataset
    assert [name for name, _ in shards.skipped] == ["a.tar/3"] and len(shards) == len(shards.paths) == 9
    assert shards.paths[3] == "a.tar/4" and torch.equal(shards[3], open_set(tmp_path / "a.tar", SIDE).dataset[3])
    write_parquet(tmp_path / "b.parquet", [None if name == "3.png" else each for name, each in contents.items()])
    assert open_set(tmp_path / "b.parquet", SIDE).dataset.skipped == [("b.parquet/000003", "the row holds no bytes")]


@pytest.mark.parametrize("cut", ["member", "header", "end"])
def test_shards_that_break_off_are_told(cut, contents, tmp_path):
    for name in "ab":
        with open(tmp_path / f"{name}.tar", "wb") as file:
            write_tar(file, contents)
    whole = (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "b.tar") as tar:
        last = tar.getmembers()[-1]
    ends = {"member": last.offset_data + 9, "end": last.offset_data + 512 * -(-last.size // 512), "header": last.offset}
    hurt = whole[: ends[cut]] if cut != "header" else whole[: last.offset] + b"?" * 512 + whole[last.offset + 512 :]
    (tmp_path / "b.tar").write_bytes(hurt)
    with pytest.raises(ValueError, match="1 of 2 shards of .* are unusable.*b.tar"):
        open_set(tmp_path, SIDE)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    shards = open_set(tmp_path, SIDE, max_bad_share=0.7).dataset
    assert len(shards) == (20 if cut == "end" else 19)
    assert [name for name, _ in shards.skipped[-2:]] == ["b.tar", "c.parquet"]
    assert "the images up to there are used" in shards.skipped[-2][1]


def test_a_shard_that_is_gone_is_no_damaged_image(contents, tmp_path):
    with fsspec.open("memory://gone/a.tar", "wb") as file:
        write_tar(file, contents)
    shards = open_set("memory://gone/a.tar", SIDE).dataset
    fsspec.filesystem("memory").rm("/gone/a.tar")
    with pytest.raises(OSError, match="the shard memory://gone/a.tar is missing"):
        shards[0]


def test_poses_of_shards_are_those_of_the_folder(images, sources, tmp_path):
    run_steps(images, tmp_path / "run", 1)
    model = load_model(tmp_path / "run")
    expected = collect(estimate(model, images)).keypoints
    for kind in ("tars", "tables", "address"):
        found = collect(estimate(model, sources[kind], workers=2 if kind == "tables" else 0))
        assert np.array_equal(found.keypoints, expected) and found.names[9].startswith("train-0001.")
    out = tmp_path / "poses.csv"
    assert main(["estimate", str(tmp_path / "run"), MEMORY, "--out", str(out), "--resume", "--device", "cpu"]) == 0
    assert out.read_text().splitlines()[7].startswith("train-0001.tar/6,")


def test_a_missing_package_is_one_sentence(sources, tmp_path, capsys, monkeypatch):
    def said(source):
        return fails(capsys, "train", source, "--out", tmp_path / "run", "--preset", "small")

    assert said("nowhere://a.tar").startswith("nowhere://a.tar: Protocol not known: nowhere")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    needs = "s3://bucket/0.tar needs a package that is not installed: "
    assert said("s3://bucket/{0..9}.tar") == f"{needs}Install s3fs to access S3"
    monkeypatch.setenv("PPL_FAST_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert said(sources["tables"]) == "Parquet needs pyarrow, which is not installed: pip install 'ppl_fast[shards]'"
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert said(sources["tars"]) == "shards need fsspec, which is not installed: pip install 'ppl_fast[shards]'"


def test_what_are_no_shards_is_told(images, sources, contents, tmp_path, capsys):
    for name, sentence in {
        "a.tar.gz": "compressed tars have to be read from their beginning",
        "missing-{0..2}.tar": "missing-0.tar",
        "*.tar": "expected shards, .tar or .parquet, got none",
    }.items():
        assert sentence in fails(capsys, "train", tmp_path / name, "--out", tmp_path / "run", "--preset", "small")
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "a.parquet").write_bytes(b"no table" * 200)
    with open(tmp_path / "empty.tar", "wb") as file:
        write_tar(file, {"a.json": b"{}"})
    for name, sentence in {
        "a.tar": "expected images in the shards of .*got none: no tar",
        "a.parquet": "a.parquet is no readable Parquet file",
        "empty.tar": "expected images in the shards of .*empty.tar, got none",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            open_set(tmp_path / name, SIDE)
    arguments = ("--reference", "video", "--out", tmp_path / "run", "--preset", "small")
    assert "the images in the shards" in fails(capsys, "train", sources["tars"], *arguments)
    with open(draw_images(tmp_path / "mixed", 1) / "a.tar", "wb") as file:
        write_tar(file, contents)
    assert find_shards(tmp_path / "mixed") is None and find_shards(images) is None  # as ever, images in files


def test_columns_of_images(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs the shards extra")
    column = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    assert tables._column(pa.schema({"photo": column, "label": pa.int64()})) == "photo.bytes"
    assert tables._column(pa.schema({"image": pa.large_binary(), "mask": column})) == "image"
    with pytest.raises(ValueError, match="got several, left, right; name one of them image"):
        tables._column(pa.schema({"left": column, "right": pa.binary()}))
    with pytest.raises(ValueError, match="got none, but label"):
        tables._column(pa.schema({"label": pa.int64()}))


def test_tables_hold_no_more_than_they_may(contents, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "HELD", 1)
    monkeypatch.setattr(tables, "OPEN", 1)
    for name in "ab":
        write_parquet(tmp_path / f"{name}.parquet", [*contents.values()])
    held = tables.Tables(find_shards(tmp_path))
    for shard, row in ((0, 0), (0, 9), (1, 4), (0, 9)):
        assert held.row(shard, row) == [*contents.values()][row]
        assert len(held._held) == len(held._open) == 1
