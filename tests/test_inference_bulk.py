"""Large runs: reading, model and writing at once, memory that does not grow, Parquet."""

import csv
import json
import os
import time
import weakref
from contextlib import nullcontext

import pytest

pytest.importorskip("PIL", reason="images need the data extra")
pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

from inference_cases import Counted, Finder, Interrupted, same, threads

from ppl_fast.inference import FORMATS, collect, estimate, write
from ppl_fast.inference.threads import Waits, ahead, behind


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


@pytest.mark.slow
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
