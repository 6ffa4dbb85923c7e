"""For each format: whole files to damage, where the damaged one goes, and what the library does with it."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import miniatures
import numpy as np
import pillow_heif
import pyarrow
import torch
import yaml
from label_cases import csv_text, slp, written
from mutations import png_sums
from pandas_files import pickled
from PIL import Image
from pyarrow import parquet
from scipy.io import savemat
from test_data_labels import coco, labels
from tiny import MODEL, run_steps
from video_files import encode

from ppl_fast.data import ImageFolder, load_labels, open_set
from ppl_fast.data.box_files import Row, read_boxes, write_boxes
from ppl_fast.data.sets.matlab import matlab
from ppl_fast.data.sets.pickles import read_table
from ppl_fast.data.video import Video
from ppl_fast.models import PPL, ExtendedPPL
from ppl_fast.models.registry import MODELS
from ppl_fast.published import checkpoints
from ppl_fast.training.checkpoint import load_optimizer, load_state
from ppl_fast.training.config import TrainConfig, check_options, read_config
from ppl_fast.training.logging import read_records

PUBLISHED = {
    "num_keypoints": 4, "image_size": 16, "memory_width": 4, "memory_hidden": 4, "memory_token_hidden": 4,
    "memory_layers": 1, "memory_banks": 2, "memory_prototypes": 2, "memory_decoder_width": 4,
    "memory_decoder_hidden": 4, "regressor_base": 1, "translator_base": 1, "reconstruction_loss": "mse",
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        seeds: gives whole files, in an empty folder.
        name: of the damaged file, below the folder of a trial.
        read: what is tried, with that folder.
        prepare: puts what else a trial needs into the folder.
        mend: makes half of the damaged files look whole to a first check.
    """

    seeds: Callable[[Path], list[bytes]]
    name: str
    read: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda folder: None
    mend: Callable[[bytes], bytes] = bytes


def _pictures(form: str, modes: tuple[str, ...], *options: dict) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        found, rng = [], np.random.default_rng(0)
        for mode in modes:
            for option in options:
                file = io.BytesIO()
                pixels = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
                exif = Image.Exif()
                exif[0x0112] = 6
                pixels.convert(mode).save(file, form, exif=exif, **option)
                found.append(file.getvalue())
        return found

    return seeds


def _heic(folder: Path) -> list[bytes]:
    found = []
    for option in ({}, {"chroma": "444"}, {"quality": -1}):
        file = io.BytesIO()
        pillow_heif.from_pillow(Image.effect_noise((48, 32), 60).convert("RGB")).save(file, **option)
        found.append(file.getvalue())
    return found


def _boxes(folder: Path) -> list[bytes]:
    write_boxes(folder / "a.csv", [Row("walk.mp4", 3, np.array([9, 8, 7, 6, 0.5])), Row("a.png", None, np.ones(5))])
    return [(folder / "a.csv").read_bytes()]


def _read_picture(folder: Path) -> None:
    images = ImageFolder(folder, 16, max_bad_share=1)
    images[0], images.original(0)


def _tar(folder: Path) -> list[bytes]:
    found, contents = [], {f"a/{i}.png": content for i, content in enumerate(_png(folder)[:3])}
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            for name, content in {**contents, "b" * 120 + "é.png": contents["a/0.png"]}.items():
                if form != tarfile.USTAR_FORMAT or len(name) < 100:
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        found.append(file.getvalue())
    return found


def _parquet(folder: Path) -> list[bytes]:
    found, contents = [], _png(folder)[:4]
    for compression in ("none", "snappy"):
        table = pyarrow.table({"image": [{"bytes": content, "path": "a.png"} for content in contents]})
        parquet.write_table(table, folder / "a.parquet", row_group_size=2, compression=compression)
        found.append((folder / "a.parquet").read_bytes())
    return found


def _read_shards(folder: Path) -> None:
    os.environ["PPL_FAST_CACHE"] = str(folder / ".kept")
    images = open_set(folder, 16, max_bad_share=1).dataset
    for number in range(min(4, len(images))):
        images[number], images.original(number)


def _read_video(folder: Path) -> None:
    video = Video(folder / "video.mp4")
    for frame in video.frames():
        assert frame.image.size == video.size
    video.image(0, 0)


def _read_h5(folder: Path) -> None:
    found = open_set(f"cub:{folder}", 16)
    for index in range(min(4, len(found.dataset))):
        found.dataset[index]
    assert found.labels.keypoints.shape[1:] == (15, 2)


def _h5(folder: Path) -> list[bytes]:
    content = miniatures.cub(folder / "a.h5", ("train",))
    found = [(folder / "a.h5").read_bytes()]
    for options in ({"chunks": True, "compression": "gzip", "shuffle": True}, {"chunks": True, "compression": "lzf"}):
        with h5py.File(folder / "b.h5", "w", libver=("earliest", "v110")[len(found) % 2]) as file:
            for name, values in content.items():
                file.create_dataset(name, data=values, **options)
        found.append((folder / "b.h5").read_bytes())
    with h5py.File(folder / "c.h5", "w") as file:  # what leads to the files outside of every trial
        for name, values in content.items():
            file[name] = values
        del file["train_img"]
        file["train_img"] = h5py.ExternalLink("../outside/secret.h5", "secret")
        file["spare"] = h5py.SoftLink("/train_img")
        file.create_dataset("more", (3, 3, 16, 16), np.uint8, external=[("../outside/secret.txt", 0, 2304)])
    return [*found, (folder / "c.h5").read_bytes()]


def _mat(folder: Path) -> list[bytes]:
    found, points = [], np.random.default_rng(0).uniform(size=(32, 2))
    for packed in (False, True):
        for arrays in ({"keypoints_2d": points}, {"first": [[1]], "keypoints_2d": np.arange(64).reshape(32, 2)}):
            savemat(folder / "a.mat", arrays, do_compression=packed)
            found.append((folder / "a.mat").read_bytes())
    return found


def _npz(folder: Path) -> list[bytes]:
    labels().save(folder / "a.npz")
    whole = (folder / "a.npz").read_bytes()
    with np.load(folder / "a.npz") as arrays:
        np.savez(folder / "b.npz", **arrays)
    return [whole, (folder / "b.npz").read_bytes()]


def _pkl(folder: Path) -> list[bytes]:
    columns = {"file_name": ["a.png", "b.png"], "value": [np.arange(36.0).reshape(18, 2)] * 2}
    return [pickled(columns), pickled(columns, manager="pandas.core.internals")]


def _read_pkl(folder: Path) -> None:
    read_table(folder / "table.pkl", ("file_name", "value"))


def _torch(zipped: bool, lightning: bool) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        torch.manual_seed(0)
        state = PPL(**PUBLISHED).to_published()
        content = {"state_dict": state, "hyper_parameters": {"thick": 1e-3}, "epoch": 3} if lightning else state
        torch.save(content, folder / "a", _use_new_zipfile_serialization=zipped)
        return [(folder / "a").read_bytes()]

    return seeds


def _read_torch(folder: Path) -> None:
    checkpoints.read_checkpoint(folder / "weights")
    checkpoints.load(None, folder / "weights", **{"image_size": 16})


def _train(folder: Path) -> Path:
    """The checkpoint of a run of one step, with every file that a resumed one reads."""
    (folder / "images").mkdir()
    miniatures.save(folder / "images" / "a.png", size=(32, 32))
    run_steps(folder / "images", folder / "run", 1)
    return next((folder / "run" / "checkpoints").iterdir())


def _of_run(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [(_train(folder) / name).read_bytes()]


def _checkpoint(folder: Path) -> None:
    with TemporaryDirectory(dir=folder) as apart:
        shutil.copytree(_train(Path(apart)), folder, dirs_exist_ok=True)


def _resume(folder: Path) -> None:
    model = ExtendedPPL.from_pretrained(folder)
    load_state(folder)
    load_optimizer(folder, model, torch.optim.AdamW(model.parameters()))


def _read_log(folder: Path) -> None:
    assert all(type(record["step"]) is int for record in read_records(folder / "log.jsonl"))


def _yaml(folder: Path) -> list[bytes]:
    sections = {"architecture": "extended-ppl", "data": "images", "model": MODEL, "train": {"steps": 3, "lr": 1e-3}}
    laughs = "model: {num_keypoints: 5}\na: &a [x, x]\nb: &b [*a, *a]\ntrain: &c {steps: 3}\n"
    return [yaml.safe_dump(sections).encode(), laughs.encode()]


def _read_yaml(folder: Path) -> None:
    config = read_config(folder / "config.yaml")
    config = check_options(folder / "config.yaml", config, config.get("architecture", "extended-ppl"))
    try:
        MODELS["extended-ppl"].Config.from_dict(config.get("model", {}))
        TrainConfig(**config.get("train", {}))
    except (TypeError, ValueError) as error:  # options are named by their owner, wherever they were given
        assert str(error).startswith(("ExtendedPPL: ", "TrainConfig: ")) and "\n" not in str(error)


def _by_others(*names: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [written(folder, name).read_bytes() for name in names]


def _slp(folder: Path) -> list[bytes]:
    return [*_by_others("tracked_none.slp")(folder), slp(folder / "a.slp", [[[1, 2, True]]]).read_bytes()]


def _read_labels(folder: Path) -> None:
    assert load_labels(folder).keypoints.ndim == 3


_png = _pictures("PNG", ("RGB", "P", "L", "RGBA", "1"), {}, {"compress_level": 0})
_jpeg = _pictures("JPEG", ("RGB", "L", "CMYK"), {}, {"progressive": True})
_tiff = _pictures("TIFF", ("RGB", "L", "1"), {}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"})
_log = '{"step": 1, "loss": 0.5, "losses": {"a": 0.5}}\n{"step": 2, "loss": 0.25, "losses": {}}\n'
FORMATS = {
    "png": Format(_png, "a.png", _read_picture, mend=png_sums),
    "jpeg": Format(_jpeg, "a.jpg", _read_picture),
    "tiff": Format(_tiff, "a.tif", _read_picture),
    "heic": Format(_heic, "a.heic", _read_picture),
    "tar": Format(_tar, "a.tar", _read_shards),
    "parquet": Format(_parquet, "a.parquet", _read_shards),
    "boxes": Format(_boxes, "boxes.csv", lambda folder: read_boxes(folder / "boxes.csv")),
    "mp4": Format(lambda folder: [encode(folder / "a.mp4", count=6).read_bytes()], "video.mp4", _read_video),
    "npz": Format(_npz, "keypoints.npz", _read_labels),
    "coco": Format(lambda folder: [json.dumps(coco()).encode()], "coco.json", _read_labels),
    "csv": Format(lambda folder: [csv_text({"a.png": [1, 2, 3, 4]}).encode()], "CollectedData.csv", _read_labels),
    "pandas": Format(_by_others("levels.h5", "appendable.h5"), "CollectedData.h5", _read_labels),
    "slp": Format(_slp, "a.slp", _read_labels),
    "h5": Format(_h5, "cub.h5", _read_h5),
    "mat": Format(_mat, "a.mat", lambda folder: matlab(folder / "a.mat", "keypoints_2d")),
    "pkl": Format(_pkl, "table.pkl", _read_pkl),
    "pth": Format(_torch(True, False), "weights", _read_torch),
    "pth_stream": Format(_torch(False, False), "weights", _read_torch),
    "ckpt": Format(_torch(True, True), "weights", _read_torch),
    "safetensors": Format(_of_run("model.safetensors"), "model.safetensors", _resume, _checkpoint),
    "optimizer": Format(_of_run("optimizer.safetensors"), "optimizer.safetensors", _resume, _checkpoint),
    "json": Format(_of_run("config.json"), "config.json", _resume, _checkpoint),
    "state": Format(_of_run("state.json"), "state.json", _resume, _checkpoint),
    "jsonl": Format(lambda folder: [_log.encode()], "log.jsonl", _read_log),
    "yaml": Format(_yaml, "config.yaml", _read_yaml),
}
