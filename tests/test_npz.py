"""Label files that announce more than they hold, or hold more than they look like."""

import io
import struct
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
from test_data_labels import labels

from ppl_fast.data import load_labels, npz


def header(shape, dtype="<f8"):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (64 - (11 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def stored(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **options)
    return file.getvalue()


def written(path, method=zipfile.ZIP_STORED, **changes):
    content = asdict(labels()) | {"skeleton": [[0, 1]]}
    content = {name: stored(value) for name, value in content.items() if value is not None} | changes
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(f"{name}.npy", data)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keypoints.npz"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_arrays_come_back_in_either_order(path, method, version):
    keypoints = labels().keypoints
    for array in (keypoints, np.asfortranarray(keypoints), keypoints.astype(">f8")):
        found = load_labels(written(path, method, keypoints=stored(array, version=version)))
        assert np.array_equal(found.keypoints, keypoints) and found.files == labels().files


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"keypoints": header((1 << 35, 2))}, "keypoints.npy announces 549755813888 bytes in shape .*, of which 0 are"),
        ({"keypoints": header((1 << 70, 1 << 70))}, "keypoints.npy announces"),
        ({"keypoints": header((3, 2, -2)) + bytes(96)}, "must hold plain numbers"),
        ({"keypoints": header((1,) * 40) + bytes(8)}, "must hold plain numbers"),
        ({"keypoints": stored(np.array([None]))}, "must hold plain numbers or text"),
        ({"keypoints": stored(np.zeros((3, 3, 2)))}, r"keypoints must have shape \(3, 2, 2\), got \(3, 3, 2\)"),
        ({"visible": stored(np.ones(3, bool))}, r"visible must have shape \(3, 2\), got \(3,\)"),
        ({"files": stored("text")}, r"files must have shape \(0,\), got \(\)"),
        ({"keypoints": b"\x93NUMPY\x09\x00" + bytes(50)}, "no valid label file"),
        ({"keypoints": header("[" * 5000)}, "no valid label file: an array's header is damaged"),
        ({"keypoints": header((3, 2, 2), "V")}, "no valid label file"),
        ({"names": None}, "lacks an array: names"),
    ],
)
def test_what_is_refused(path, changes, sentence):
    with pytest.raises(ValueError, match=f"^load_labels: {path} .*{sentence}") as caught:
        load_labels(written(path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bounds_are_refused(path, method):
    with pytest.raises(ValueError, match="files.npy is compressed by an unknown method"):
        load_labels(written(path, method))


def test_a_bomb_is_refused_by_its_headers(path, monkeypatch):
    """All arrays fit to one another; nothing is unpacked but the headers."""
    n, joints = 1 << 10, 1 << 20
    arrays = {
        "files": header((n,), "<U4") + bytes(16 * n),
        "names": header((joints,), "<U1") + bytes(4 * joints),
        "keypoints": header((n, joints, 2), "|i1") + bytes(2 * n),
        "visible": header((n, joints), "|b1") + bytes(n),
    }
    read = []
    monkeypatch.setattr(npz.Member, "read", lambda self: read.append(self))
    written(path, zipfile.ZIP_DEFLATED, **arrays)
    with pytest.raises(ValueError, match="keypoints.npy announces 2147483648 bytes"):
        load_labels(path)
    monkeypatch.setattr(npz, "LARGEST", 1 << 20)
    n, joints = 1 << 8, 1 << 10
    arrays = {
        "files": header((n,), "<U4") + bytes(16 * n),
        "names": header((joints,), "<U1") + bytes(4 * joints),
        "keypoints": header((n, joints, 2), "|i1") + bytes(2 * n * joints),
        "visible": header((n, joints), "|b1") + bytes(n * joints),
    }
    with pytest.raises(ValueError, match="its arrays are larger than 1048576 bytes"):
        load_labels(written(path, zipfile.ZIP_DEFLATED, **arrays))
    assert read == []


def test_bounds_leave_room_for_the_largest_published_labels():
    """Human3.6M: 800,000 frames of 32 joints."""
    assert npz.LARGEST > 800_000 * 32 * (2 + 1) * 8


def test_an_entry_that_unpacks_to_less_than_it_says_is_refused(path):
    short = stored(np.array(labels().files))[:-4]
    written(path, zipfile.ZIP_DEFLATED, files=short)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")  # of the first entry in the directory
    data[at + 24 : at + 28] = struct.pack("<I", len(short) + 4)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="no valid label file"):
        load_labels(path)
