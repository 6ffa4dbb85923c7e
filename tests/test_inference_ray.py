"""Inference on a local Ray: each row once, as by one process, also where a worker is killed."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("ray.data", reason="bulk inference on Ray needs the ray extra")
pytest.importorskip("pyarrow.parquet", reason="Parquet needs the parquet extra")
pytest.importorskip("av", reason="videos need the video extra")

import ray
from pyarrow import parquet
from ray_model import Dying
from video_files import cut, encode

from ppl_fast.inference import estimate, write
from ppl_fast.inference import ray as on_ray

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray of this machine alone, which asks no network and tells nobody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        options = {"include_dashboard": False, "object_store_memory": 128 << 20, "_node_ip_address": "127.0.0.1"}
        for attempt in range(3):  # Ray gives a node 30 seconds to start, which a busy machine may need
            try:
                ray.init(address="local", num_cpus=4, **options)
                break
            except Exception as error:
                ray.shutdown()
                if attempt == 2 or "timed out" not in str(error):
                    raise
        yield
        ray.shutdown()


def ordered(path):
    table = parquet.read_table(path)
    return table.sort_by([("file", "ascending"), ("frame", "ascending")]).replace_schema_metadata()


def test_each_row_is_there_once_after_a_worker_was_killed(cluster, clips, tmp_path):
    (tmp_path / "marks").mkdir()
    model = Dying(str(tmp_path / "marks"), batches=3)
    on_ray.estimate(model, clips, batch_size=2, actors=2, frames=4).write_parquet(str(tmp_path / "rows"))
    assert (tmp_path / "marks" / "killed").exists()
    assert len(list((tmp_path / "marks").iterdir())) >= 1 + 2  # the mark, and one a process
    write(estimate(Dying(str(tmp_path), batches=0), clips, batch_size=2), parquet=tmp_path / "one.parquet")
    assert ordered(tmp_path / "rows").equals(ordered(tmp_path / "one.parquet"))


def test_damaged_files_have_no_rows(cluster, clips, tmp_path):
    folder = shutil.copytree(clips, tmp_path / "some")
    (folder / "text.png").write_text("no picture")
    (folder / "text.mp4").write_text("no video")
    cut(encode(folder / "longer.mkv", count=50), 0.6)  # breaks off while it is decoded
    model = Dying(str(tmp_path), batches=0)
    found = on_ray.estimate(model, folder, batch_size=4, confidence=True).to_pandas()
    longer = found.file == "longer.mkv"
    assert (~longer).sum() == 26 and not found.file.str.startswith("text").any()
    assert 0 < longer.sum() < 50  # up to the damage
    assert found.keypoint_00_confidence.between(0, 1).all()


def test_wrong_arguments_are_named(clips):
    with pytest.raises(ValueError, match="frames must be a multiple of the batch size 32, got 33"):
        on_ray.estimate(Dying("", 0), clips, frames=33)
