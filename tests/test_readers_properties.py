"""Label files with anything changed in them are read, or refused in one sentence that names the file."""

import copy
import json

import numpy as np
import pytest
from properties import given, hypothesis, st
from test_data_labels import coco, labels

from ppl_fast.data import Labels, load_labels


def read_or_refuse(path) -> None:
    try:
        loaded = load_labels(path)
    except ValueError as error:
        hypothesis.event("refused")
        sentence = str(error)
        assert sentence.startswith("load_labels: ") and path.name in sentence
        assert "\n" not in sentence
    else:
        hypothesis.event("read")
        assert isinstance(loaded, Labels)
        assert loaded.keypoints.shape == (len(loaded.files), len(loaded.names), 2)
        assert np.isfinite(loaded.keypoints[loaded.visible]).all()


@st.composite
def spoilt(draw, content: bytes) -> bytes:
    """Some bytes replaced, some removed, some inserted."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        removed = draw(st.sampled_from([0, 1, 1, 7, len(content)]))
        content = content[:at] + draw(st.binary(max_size=4)) + content[at + removed :]
    return content


def saved(path) -> bytes:
    labels().save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


@given(data=st.data())
def test_bytes_of_an_npz_file(folder, data):
    path = folder / "keypoints.npz"
    path.write_bytes(data.draw(spoilt(saved(path))))
    read_or_refuse(path)


@given(data=st.data())
def test_bytes_of_a_coco_file(folder, data):
    path = folder / "coco.json"
    path.write_bytes(data.draw(spoilt(json.dumps(coco()).encode())))
    read_or_refuse(path)


ARRAYS = st.one_of(
    st.sampled_from([np.array(3), np.array("text"), np.array(None), np.zeros(0), np.array([b"a", b"b", b"c"])]),
    st.tuples(
        st.lists(st.integers(0, 4), max_size=4), st.sampled_from("?bdfFOU"), st.sampled_from([0, 1, -1, np.nan, 9e9])
    ).map(lambda drawn: np.full(drawn[0], drawn[2]).astype(drawn[1])),
)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast", "ignore::numpy.exceptions.ComplexWarning")
@given(
    change=st.dictionaries(
        st.sampled_from(["files", "keypoints", "visible", "names", "skeleton"]), st.none() | ARRAYS, min_size=1
    )
)
def test_arrays_of_an_npz_file(folder, change):
    path = folder / "arrays.npz"
    labels().save(path)
    with np.load(path) as loaded:
        arrays = {**loaded, **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    read_or_refuse(path)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 12), st.just(10**400), st.floats(), st.text(max_size=3))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "keypoints", "x"]), inner),
    max_leaves=6,
)


def places(node, at=()):
    """Every place in a JSON value, as a path of keys."""
    yield at
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inside:
        yield from places(value, (*at, key))


@st.composite
def changed(draw, value):
    """Some places of a JSON value hold something else, or nothing."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(list(places(value))[1:] or [("images",)]))
        holder = value
        for key in path:
            holder = holder[key]
        if draw(st.booleans()):
            holder[last] = draw(JSON)
        else:
            holder.pop(last, None) if isinstance(holder, dict) else holder.pop(last)
    return value


@given(content=changed(coco()))
def test_values_of_a_coco_file(folder, content):
    path = folder / "values.json"
    path.write_text(json.dumps(content))
    read_or_refuse(path)
