"""estimate, evaluate and make-figures: what they write, and what they refuse."""

import csv
import json
import os

import numpy as np
import pytest
import torch

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import fails
from torch._utils import ExceptionWrapper

from ppl_fast.cli import main
from ppl_fast.data import ImageFolder, load_labels, make_figures, to_pixels
from ppl_fast.training import load_model


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "figures"
    make_figures(folder, 12, size=32)
    return folder


def test_estimate_writes_pixels_of_the_originals(run, images, tmp_path):
    pytest.importorskip("PIL", reason="images need the data extra")
    outputs = [
        f"--{name}={tmp_path / value}" for name, value in (("out", "new/p.csv"), ("coco", "p.json"), ("overlay", "o"))
    ]
    assert main(["estimate", str(run), str(images), *outputs, "--iterations", "2", "--batch-size", "3"]) == 0

    dataset, model = ImageFolder(images, 32), load_model(run)
    keypoints = model.estimate(torch.stack([dataset[i] for i in range(len(dataset))]), iterations=2).double().numpy()
    expected = to_pixels(keypoints, 32, (40, 30))
    rows = list(csv.reader((tmp_path / "new/p.csv").open()))
    assert [row[0] for row in rows[1:]] == dataset.paths
    written = np.array([row[1:] for row in rows[1:]], float).reshape(expected.shape)
    np.testing.assert_allclose(written, expected, atol=2e-3)

    labels = load_labels(tmp_path / "p.json")
    np.testing.assert_allclose(labels.keypoints, expected, atol=2e-3)
    assert labels.skeleton == [tuple(link) for link in model.links.tolist()]
    assert sorted(os.listdir(tmp_path / "o")) == sorted(f"{path}.png" for path in dataset.paths)


def test_estimate_takes_as_many_threads_as_asked_for(run, images, tmp_path):
    pytest.importorskip("PIL", reason="images need the data extra")
    assert main(["estimate", str(run), str(images), "--out", str(tmp_path / "p.csv"), "--threads", "2"]) == 0
    assert torch.get_num_threads() == 2


def test_an_output_folder_that_takes_no_files_is_named(run, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    sentence = fails(capsys, "estimate", run, images, "--out", tmp_path / "p.csv")
    assert f"output folder {tmp_path} is not writable" in sentence


def test_estimate_names_unusable_images_and_outputs(run, images, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"in {empty}, got none" in fails(capsys, "estimate", run, empty, "--out", tmp_path / "p.csv")
    blocked = images / "0.png" / "p.csv"
    assert f"cannot create the output folder {images / '0.png'}" in fails(
        capsys, "estimate", run, images, "--out", blocked
    )
    assert "is a directory" in fails(capsys, "estimate", run, images, "--out", tmp_path)
    assert os.listdir(tmp_path) == ["empty"]


def test_damaged_image_in_a_loading_process_is_one_sentence(run, images, tmp_path, capsys, monkeypatch):
    def damaged(self, index):
        try:
            raise ValueError(f"ImageFolder: {self.paths[index]} could not be decoded")
        except ValueError:
            ExceptionWrapper(where="in DataLoader worker process 0").reraise()

    monkeypatch.setattr(ImageFolder, "__getitem__", damaged)
    sentence = fails(capsys, "estimate", run, images, "--out", tmp_path / "p.csv")
    assert sentence == "ImageFolder: 0.png could not be decoded"
    assert not (tmp_path / "p.csv").exists()


def test_damaged_model_is_named(run, images, tmp_path, capsys):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((run / "model" / name).read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert str(weights) in fails(capsys, "estimate", tmp_path, images, "--out", tmp_path / "p.csv")
    (tmp_path / "config.json").write_text('{"architecture": "AutoLoop", "config": {}}')
    assert "one of ppl, autolink, extended-ppl, extended-autolink, got 'AutoLoop'" in fails(
        capsys, "estimate", tmp_path, images, "--out", tmp_path / "p.csv"
    )


def test_evaluate_prints_each_protocol_and_writes_metrics(run, figures, tmp_path, capsys):
    pytest.importorskip("scipy", reason="matching needs the data extra")
    out = tmp_path / "metrics.json"
    assert main(["evaluate", str(run), str(figures), "--out", str(out), "--occlusion-images", "4"]) == 0
    shown, metrics = capsys.readouterr().out, json.loads(out.read_text())
    for name in ("regression", "matching", "pck", "limb_share"):
        assert metrics[name]["protocol"] in shown
        assert f"{metrics[name]['value']:.4f}" in shown
    assert "mean pose" in shown
    assert len(metrics["occlusion"]["rows"][0]["rounds"]) == 5


def test_evaluate_with_its_own_training_set(run, figures, tmp_path, capsys):
    pytest.importorskip("scipy", reason="matching needs the data extra")
    out = tmp_path / "metrics.json"
    arguments = ["evaluate", str(run), str(figures), "--train-data", str(figures), "--occlusion-images", "0"]
    assert main([*arguments, "--out", str(out)]) == 0
    metrics = json.loads(out.read_text())
    assert metrics["images"] == {"train": 12, "test": 12}
    assert "occlusion" not in metrics


def test_evaluate_without_labels_says_so(run, images, tmp_path, capsys):
    assert f"in {images}" in fails(capsys, "evaluate", run, images, "--out", tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_make_figures(figures, tmp_path, capsys):
    assert main(["make-figures", str(tmp_path / "same"), "--count", "12", "--size", "32"]) == 0
    for path in figures.glob("*.png"):
        assert path.read_bytes() == (tmp_path / "same" / path.name).read_bytes()
    np.testing.assert_array_equal(load_labels(figures).keypoints, load_labels(tmp_path / "same").keypoints)
    assert "must be new or an empty folder" in fails(capsys, "make-figures", tmp_path / "same", "--count", 1)
