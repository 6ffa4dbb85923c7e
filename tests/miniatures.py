"""Published data sets in miniature, in their exact layouts; each writer returns what it stored."""

import h5py
import numpy as np
import pytest
from pandas_files import pickled
from PIL import Image
from scipy.io import savemat

from ppl_fast.data import open_set

SIDE = 16


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def save(path, level=100, size=(SIDE, SIDE)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 0, 0)).save(path)


def h36m(root, subjects=(1, 5, 6, 7, 8, 9, 11), action="Walking 1.54138969", frames=(1, 2, 10)) -> dict:
    """Frames with labels in [0, 1], (row, column); a recording of another action; returns labels by frame."""
    labels, random = {}, rng()
    for subject in subjects:
        folder = root / f"S{subject}"
        save(folder / "WithBackground" / "WalkDog.60457274" / "1.jpg")
        for frame in frames:
            points = random.uniform(0, 1, (32, 2))
            save(folder / "WithBackground" / action / f"{frame}.jpg", 20 * frame)
            for beside in ("Landmarks", "BackgroudMask"):
                (folder / beside / action).mkdir(parents=True, exist_ok=True)
            savemat(folder / "Landmarks" / action / f"{frame}.mat", {"keypoints_2d": points})
            mask = np.zeros((SIDE, SIDE), dtype=bool)
            mask[:, :8] = True
            Image.fromarray(mask).save(folder / "BackgroudMask" / action / f"{frame}.png")
            labels[f"S{subject}/WithBackground/{action}/{frame}.jpg"] = points
    return labels


def taichi(root, names=("b#000#100.png", "a#000#100.png"), joints=18, size=(256, 256)) -> dict:
    """Two videos and two labelled frames a split, as their tables have them: (x, y), -1 where not found."""
    labels, random = {}, rng()
    for video in ("v1#000#100.mp4", "v2#000#100.mp4"):
        for frame in range(3):
            save(root / "train" / video / f"{frame:07d}.png")
    (root / "landmark").mkdir()
    for split in ("train", "test"):
        values = [random.integers(0, 256, (joints, 2)).astype(float) for _ in names]
        values[0][3] = -1
        for name in names:
            save(root / "eval_images" / "taichi-256" / split / name, size=size)
        (root / "landmark" / f"taichi_{split}_gt.pkl").write_bytes(pickled({"file_name": names, "value": values}))
        labels[split] = dict(zip(names, values, strict=True))
    return labels


def cub(file, parts, joints=15, count=3) -> dict:
    """What AutoLink's preprocessing writes: uint8 images and visibility, float32 (row, column) in [0, 1]."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content, random = {}, rng()
    for part in parts:
        content[f"{part}_img"] = random.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
        content[f"{part}_kp"] = random.uniform(0, 1, (count, joints, 2)).astype(np.float32)
        content[f"{part}_vis"] = random.integers(0, 2, (count, joints), dtype=np.uint8)
    with h5py.File(file, "w") as opened:
        for name, values in content.items():
            opened.create_dataset(name, values.shape, values.dtype, data=values)
    return content


def fails(match, spec, error=ValueError, **options) -> str:
    with pytest.raises(error, match=match) as caught:
        open_set(spec, SIDE, **options).labels  # noqa: B018
    return str(caught.value)
