"""Label files of other programs that are damaged, hostile, or something else: one sentence that names them."""

import gzip

import h5py
import numpy as np
import pytest
from label_cases import WRITTEN, csv_text, slp, written

from ppl_fast.data import load_labels


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected rows that begin with scorer"),
        ("a,b\n1,2\n", "expected rows that begin with scorer"),
        ("scorer,me\nbodyparts,nose\n", "got scorer, bodyparts"),
        (csv_text({"a.png": [1, 2, 3]}), "row a.png must have 5 cells, got 4"),
        (csv_text({"a.png": [1, 2, 3, "x"]}), "could not convert"),
        (csv_text({"a.png": [1, 2, 3, 4], "a.png ": []}), "cells"),
        (csv_text({"a.png": [1, 2, 3, 4]}).replace("nose,nose", "nose,tail"), "headings of their own"),
        (csv_text({"a.png": [1, 2, 3, 4]}).replace("me,me,me,me", "me,me,you,you"), "one scorer, got me, you"),
        (csv_text({"a.png": [1, 2, 3, 4]}).replace("x,y,x,y", "x,y,likelihood,y"), "predictions with a likelihood"),
        (csv_text({"a.png": [1, 2, 3, 4]}) + "a.png,1,2,3,4\n", "distinct"),
        ('scorer,"' + "x" * 200_000 + '"\n', "no CSV"),
    ],
)
def test_tables_of_text(tmp_path, text, sentence):
    path = tmp_path / "CollectedData_me.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_labels(tmp_path)
    assert str(caught.value).startswith(f"load_labels: {path} is no valid label table: ")


def test_other_hdf5_files(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.zeros(3)
    with pytest.raises(ValueError, match="a.h5 is no valid label table: no table of pandas in it"):
        load_labels(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="b.h5 is no valid label file: truncated, or no HDF5 file"):
        load_labels(tmp_path / "b.h5")
    (tmp_path / "c.slp").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="c.slp is no valid label file of SLEAP: truncated, or no HDF5 file"):
        load_labels(tmp_path)


def changed(path, name, values):
    with h5py.File(path, "r+") as file:
        del file[name]
        if isinstance(values, h5py.ExternalLink):
            file[name] = values
        elif values is not None:
            file.create_dataset(name, data=values)
    return path


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("axis0_label1", np.array([0, 9, 0, 0]), "must number the 2 texts of its level"),
        ("axis0_label1", np.array([0, 0]), "levels of one length"),
        ("axis1_level2", np.arange(3), "must hold texts"),
        ("block0_values", np.zeros((2, 4)), "block 0 must have 3 x 4 values"),
        ("block0_values", h5py.ExternalLink("secret.h5", "secret"), "refused: .* is a link to something else"),
        ("axis0_level0", None, "must be a list of texts, or levels"),
    ],
)
def test_tables_by_pandas_that_do_not_fit(tmp_path, name, values, sentence):
    path = changed(written(tmp_path, "levels.h5"), f"df_with_missing/{name}", values)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_labels(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_headings_are_read_without_running_them(tmp_path):
    path = written(tmp_path, "appendable.h5")
    with h5py.File(path, "r+") as file:
        file["df_with_missing"].attrs["non_index_axes"] = np.bytes_(b"cos\nsystem\n(S'touch harm'\ntR.")
    with pytest.raises(ValueError, match="headings are damaged"):
        load_labels(path)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("points", np.zeros(3, [("x", "f8")]), "lacks|no field"),
        ("instances", None, "lacks an array"),
        ("videos_json", np.array(["[]"], "S"), "expected an object of JSON"),
        ("videos_json", np.array(['{"backend": {"filename": "."}}'], "S"), "its images are packed into it"),
        ("frames", np.array([(0, 9, 0, 0, 1)], [(n, "u8") for n in "abcde"]), "lacks|no field"),
    ],
)
def test_projects_of_sleap_that_do_not_fit(tmp_path, name, values, sentence):
    path = changed(slp(tmp_path / "a.slp", [[[1, 2, True]]]), name, values)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_labels(path)
    assert str(caught.value).startswith(f"load_labels: {path} ")


def test_predictions_are_no_labels(tmp_path):
    with pytest.raises(ValueError, match="nothing that was labelled by hand"):
        load_labels(slp(tmp_path / "a.slp", [[[1, 2, True]]], kind=1))
    with pytest.raises(ValueError, match="one skeleton, got 2"):
        load_labels(slp(tmp_path / "b.slp", [[[1, 2, True]]], skeletons=[{}, {}]))


@pytest.mark.parametrize("name", ["levels.h5", "tracked_none.slp", "analysis.h5"])
def test_damage_anywhere_ends_in_a_sentence(tmp_path, name):
    """A few bytes changed or the end cut off, at places that the seed draws."""
    whole = gzip.decompress((WRITTEN / f"{name}.gz").read_bytes())
    rng, refused = np.random.default_rng(0), 0
    for trial in range(60):
        raw = bytearray(whole)
        for at in rng.integers(0, len(raw), 4):
            raw[at] = rng.integers(256)
        path = tmp_path / name
        path.write_bytes(raw[: rng.integers(len(raw))] if trial % 3 == 0 else raw)
        try:
            load_labels(path, individual="one" if "analysis" in name else None)
        except ValueError as error:
            refused += 1
            assert str(error).startswith("load_labels: ") and str(path) in str(error) and "\n" not in str(error)
    assert refused > 10
