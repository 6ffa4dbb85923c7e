"""HDF5 files that lead out of themselves, or unfold beyond themselves, are refused by every reader of arrays."""

import os

import h5py
import numpy as np
import pytest
from miniatures import SIDE, cub, fails

from ppl_fast.data import LayoutError, open_set
from ppl_fast.data.hdf import opened

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE), np.uint8)


def stored(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=IMAGES, **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": True},
        {"chunks": (1, 3, SIDE, SIDE), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (2, 3, 5, 7), "compression": "lzf"},
        {"maxshape": (None, 3, SIDE, SIDE)},
    ],
)
def test_arrays_as_h5py_writes_them_are_read(tmp_path, options):
    with opened(stored(tmp_path / "a.h5", **options), "a") as found:
        assert found.shape == IMAGES.shape and found.dtype == np.uint8
        assert np.array_equal(found[...], IMAGES) and np.array_equal(found[1], IMAGES[1])


def external_storage(file):
    file.create_dataset("train_img", (1, 3, SIDE, SIDE), np.uint8, external=[("/etc/passwd", 0, 768)])


def external_link(file):
    file["train_img"] = h5py.ExternalLink("secret.h5", "secret")


def dangling_link(file):
    file["train_img"] = h5py.ExternalLink("nowhere.h5", "x")


def soft_link(file):
    file["other"] = IMAGES
    file["train_img"] = h5py.SoftLink("/other")


def soft_circle(file):
    file["train_img"] = h5py.SoftLink("/train_img")


def virtual(file):
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
    layout[:] = h5py.VirtualSource("secret.h5", "secret", IMAGES.shape)
    file.create_virtual_dataset("train_img", layout)


def group(file):
    file.create_group("train_img")


def scalar(file):
    file["train_img"] = np.uint8(3)


def compound(file):
    file["train_img"] = np.zeros((1, 3, SIDE, SIDE), [("a", "u1"), ("b", "u1")])


def texts(file):
    file["train_img"] = np.array(["a"], dtype=h5py.string_dtype())


def references(file):
    file.create_dataset("train_img", (1, 3, SIDE, SIDE), h5py.ref_dtype)


def empty(file):
    file["train_img"] = h5py.Empty("u1")


def unwritten(file):
    file.create_dataset("train_img", (1 << 40, 3, SIDE, SIDE), np.uint8)


def unwritten_pieces(file):
    file.create_dataset("train_img", (1 << 40, 3, SIDE, SIDE), np.uint8, chunks=(1, 3, SIDE, SIDE))


def half_written(file):
    file.create_dataset("train_img", (4, 3, SIDE, SIDE), np.uint8, chunks=(1, 3, SIDE, SIDE))[:2] = IMAGES


def huge_piece(file):
    made = file.create_dataset("train_img", (1, 3, 10000, 10000), np.uint8, chunks=(1, 3, 10000, 10000), compression=1)
    made[0, 0, 0, 0] = 1


def unknown_filter(file):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, 3, SIDE, SIDE))
    plist.set_filter(305, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((1, 3, SIDE, SIDE))
    h5py.h5d.create(file.id, b"train_img", h5py.h5t.NATIVE_UINT8, space, plist)


REFUSED = {
    external_storage: "refused: train_img lies in another file",
    external_link: "refused: train_img is a link to something else",
    dangling_link: "refused: train_img is a link to something else",
    soft_link: "refused: train_img is a link to something else",
    soft_circle: "refused: train_img is a link to something else",
    virtual: "refused: train_img is a virtual set, which lies in other files",
    group: "train_img must be an array, got a group or a type",
    scalar: "refused: train_img must hold plain numbers",
    compound: "refused: train_img must hold plain numbers",
    texts: "refused: train_img must hold plain numbers",
    references: "refused: train_img must hold plain numbers",
    empty: "refused: train_img must hold plain numbers",
    unwritten: "refused: train_img announces .* bytes, of which the file holds 0",
    unwritten_pieces: "refused: train_img announces 1099511627776 pieces, of which the file holds 0",
    half_written: "refused: train_img announces 4 pieces, of which the file holds 2",
    huge_piece: "refused: train_img is stored in pieces of 300000000 bytes, more than",
    unknown_filter: "refused: train_img needs the filter 305, which is none of HDF5's own that are lossless",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_is_refused(tmp_path, make):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = IMAGES
    with h5py.File(tmp_path / "flower.h5", "w") as file:
        make(file)
    sentence = fails(REFUSED[make], f"flowers:{tmp_path}")
    assert sentence.startswith(f"{tmp_path}/flower.h5: ") and "\n" not in sentence


def test_labels_are_read_by_the_same_rules(tmp_path):
    for part in ("kp", "vis"):
        cub(tmp_path / "cub.h5", ("train",))
        with h5py.File(tmp_path / "cub.h5", "a") as file:
            del file[f"train_{part}"]
            file[f"train_{part}"] = h5py.ExternalLink("secret.h5", "secret")
        fails(f"cub.h5: refused: train_{part} is a link to something else", f"cub:{tmp_path}")
    cub(tmp_path / "cub.h5", ("train",))
    with h5py.File(tmp_path / "cub.h5", "a") as file:
        del file["train_kp"]
        file.create_dataset("train_kp", (1 << 16, 1 << 10), np.uint8, chunks=(1 << 16, 1 << 10), compression=1)[:1] = 1
    fails("cub.h5: train_kp must hold at most", f"cub:{tmp_path}")


def test_labels_that_are_not_finite_are_named(tmp_path):
    cub(tmp_path / "cub.h5", ("train",))
    with h5py.File(tmp_path / "cub.h5", "a") as file:
        file["train_vis"][0, 0] = 0
        file["train_kp"][0, 0] = np.nan
    assert not open_set(f"cub:{tmp_path}", SIDE).labels.visible[0, 0]
    with h5py.File(tmp_path / "cub.h5", "a") as file:
        file["train_vis"][0, 0] = 1
    fails("cub.h5: train_kp must be finite wherever visible, got NaN or infinity", f"cub:{tmp_path}")


def test_damaged_files_and_missing_arrays_are_named(tmp_path):
    path = stored(tmp_path / "flower.h5")
    fails("no train_img in flower.h5, only \\['a'\\]", f"flowers:{tmp_path}", LayoutError)
    path.write_bytes(path.read_bytes()[:700])
    fails("flower.h5: truncated, or no HDF5 file", f"flowers:{tmp_path}")
    with pytest.raises(ValueError, match="a.h5: not a regular file, but a named pipe"):
        os.mkfifo(tmp_path / "a.h5")
        with opened(tmp_path / "a.h5", "a"):
            raise AssertionError


def test_an_array_can_go_between_two_readings(tmp_path):
    cub(tmp_path / "cub.h5", ("train",))
    found = open_set(f"cub:{tmp_path}", SIDE)
    with h5py.File(tmp_path / "cub.h5", "a") as file:
        del file["train_img"]
    with pytest.raises(ValueError):
        found.dataset[0]
