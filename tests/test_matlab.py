"""MATLAB's files: what scipy writes comes back, and what is damaged or enormous is refused in a sentence."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from properties import given, st
from scipy.io import loadmat, savemat

from ppl_fast.data.sets.matlab import CLASSES, matlab

ARRAYS = {
    "few": np.array([[7.0]]),
    "long_name_of_an_array": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    "none": np.zeros((1, 0)),
    "parts": np.random.default_rng(0).uniform(size=(32, 2)),
} | {name: np.array([[0, 1, 2], [3, 4, 5]], name) for name in CLASSES.values()}


@pytest.mark.parametrize("compressed", [False, True])
def test_what_scipy_writes_comes_back(tmp_path, compressed):
    path = tmp_path / "a.mat"
    savemat(path, ARRAYS | {"text": "x", "cells": np.array([1, "a"], object)}, do_compression=compressed)
    for name, values in ARRAYS.items():
        found = matlab(path, name)
        assert found.dtype == values.dtype and np.array_equal(found, values), name
        assert np.array_equal(found, loadmat(path)[name])


def element(kind, body, order="<"):
    return struct.pack(f"{order}II", kind, len(body)) + body + bytes(-len(body) % 8)


def array(name=b"x", kind=6, stored=2, numbers=b"\x01\x02", shape=(1, 2), flags=0, order="<"):
    parts = [
        element(6, struct.pack(f"{order}II", kind | flags << 8, 0), order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
        element(1, name, order),
        element(stored, numbers, order),
    ]
    return element(14, b"".join(parts), order)


def written(path, *elements, mark=b"IM", version=0x0100):
    order = "<" if mark == b"IM" else ">"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + struct.pack(f"{order}H", version) + mark + b"".join(elements))
    return path


def compressed(content):
    packed = zlib.compress(content)
    return struct.pack("<II", 15, len(packed)) + packed  # without padding


def test_arrays_in_a_smaller_type_and_of_either_byte_order(tmp_path):
    """As MATLAB stores integers that are doubles."""
    path = tmp_path / "a.mat"
    for content in ([array()], [array(b"other"), array()], [compressed(array(b"other")), compressed(array())]):
        found = matlab(written(path, *content), "x")
        assert found.dtype == np.float64 and found.tolist() == [[1, 2]]
    big = array(stored=3, numbers=struct.pack(">2h", 1, -2), order=">")
    assert matlab(written(path, big, mark=b"MI"), "x").tolist() == [[1, -2]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([array()[:-9]], "an element of 64 bytes where 55 are left"),
        ([array(shape=(1, 3))], r"x of shape \(1, 3\) does not have as many numbers"),
        ([array(shape=(-1, -2))], "does not have as many numbers"),
        ([array(shape=(2,))], "without dimensions"),
        ([array(shape=(1,) * 33)], "without dimensions"),
        ([array(shape=(1 << 30, 1 << 30))], "does not have as many numbers"),
        ([array(flags=8)], "must be an array of real numbers, got complex numbers"),
        ([array(kind=1)], "must be an array of real numbers, got cells"),
        ([array(kind=5)], "got a sparse matrix"),
        ([array(kind=99)], "got something else"),
        ([array(stored=14)], "stored as the unknown type 14"),
        ([element(14, b"")], "truncated"),
        ([struct.pack("<II", 14, 0xFFFFFFF0)], "an element of 4294967280 bytes where 0 are left"),
        ([struct.pack("<II", 15, 4) + b"abcd"], "truncated"),
        ([compressed(struct.pack("<II", 14, 0xFFFFFFF0))], "an array of more than"),
        ([compressed(struct.pack("<II", 14, 1000) + bytes(9))], "a compressed array of 9 bytes that announces 1000"),
        ([array(b"y")], "expected the array x, got none of that name"),
    ],
)
def test_what_is_refused(tmp_path, content, sentence):
    path = written(tmp_path / "a.mat", *content)
    with pytest.raises(ValueError, match=f"^{path}: .*{sentence}"):
        matlab(path, "x")


def test_other_versions_are_named(tmp_path):
    path = tmp_path / "a.mat"
    for start in (b"MATLAB 7.3 MAT-file".ljust(512), b"\x89HDF\r\n\x1a\n"):
        path.write_bytes(start)
        with pytest.raises(ValueError, match=f"^{path}: a MATLAB file of version 7.3, which is not read; save it with"):
            matlab(path, "x")
    savemat(path, {"x": np.ones((2, 2))}, format="4")
    for write in (lambda: None, lambda: path.write_bytes(b""), lambda: written(path, version=0x0200)):
        write()
        with pytest.raises(ValueError, match=f"^{path}: truncated, or no MATLAB file of version 5 to 7"):
            matlab(path, "x")


def test_a_bomb_unpacks_no_further_than_it_announces(tmp_path):
    bomb = zlib.compress(array(numbers=bytes(64 << 20), shape=(1, 64 << 20)))
    packed = struct.pack("<II", 15, len(bomb)) + bomb
    body = zlib.compress(struct.pack("<II", 14, 64) + bytes(64 << 20))
    small = written(tmp_path / "a.mat", struct.pack("<II", 15, len(body)) + body)
    tracemalloc.start()
    with pytest.raises(ValueError, match="without flags"):
        matlab(small, "x")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    with pytest.raises(ValueError, match=r"x is larger than \d+ bytes"):  # as the doubles that its class has
        matlab(written(tmp_path / "b.mat", packed), "x")


@given(data=st.data())
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.mat"
    content = bytearray(array() + compressed(array(b"y")))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from([0, 1, 14, 127, 128, 255]))
    written(path, bytes(content))
    try:
        assert matlab(path, "y").size < 10
    except ValueError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
