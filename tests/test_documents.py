"""JSON and YAML without end, in every place that reads one: refused in a sentence that names the file."""

import json
import os
import socket

import numpy as np
import pytest
from tiny import MODEL, fails, run_steps

from ppl_fast import _documents
from ppl_fast._documents import DEEPEST, parse_json, read_bytes, read_json, read_yaml
from ppl_fast.data import load_labels
from ppl_fast.models import MODELS
from ppl_fast.training.config import check_options, read_config
from ppl_fast.training.logging import RunLog, read_records

DEEP = "[" * 100_000 + "]" * 100_000
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))


def test_json_nests_as_deep_as_documented_and_no_deeper():
    nested = "[" * DEEPEST + "]" * DEEPEST
    value, depth = parse_json(nested), 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == DEEPEST - 1
    for deeper in (f"[{nested}]", '{"a":' * 101 + "1" + "}" * 101, DEEP, "[" * 100_000):
        with pytest.raises(ValueError, match=r"nested deeper than 100 levels"):
            parse_json(deeper)


@pytest.mark.parametrize("text", [b"", b"\xff", b"{", b"[1", b'"' + b"\\" * 99, b"1" * 5000])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_files_are_read_up_to_their_bound(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": 1}')
    assert read_json(path) == {"a": 1}
    assert read_bytes(path, 8) == b'{"a": 1}'
    with pytest.raises(ValueError, match="8 bytes long; expected at most 7"):
        read_bytes(path, 7)
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # it takes no room, neither on the disk nor, refused, in memory
    with pytest.raises(ValueError, match="bytes long"):
        read_json(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "link").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for name, kind in {"pipe": "a named pipe", "link": "a device", "socket": "a socket", ".": "a folder"}.items():
        with pytest.raises(ValueError, match=f"not a regular file, but {kind}"):
            read_json(tmp_path / name)
    with pytest.raises(OSError, match="symbolic links"):
        read_json(tmp_path / "circle")


def yaml_file(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    return path


def test_yaml_of_plain_types_with_an_alias_is_read(tmp_path):
    path = yaml_file(tmp_path, "a: &a {x: 1, y: [2.5, text]}\nb: {<<: *a, x: 3}\n")
    assert read_yaml(path) == {"a": {"x": 1, "y": [2.5, "text"]}, "b": {"x": 3, "y": [2.5, "text"]}}
    assert read_yaml(yaml_file(tmp_path, "")) is None
    for encoding in ("utf-8-sig", "utf-16"):  # as consoles and editors of Windows write them
        (tmp_path / "a.yaml").write_bytes("a: caf\u00e9\r\n".encode(encoding))
        assert read_yaml(tmp_path / "a.yaml") == {"a": "caf\u00e9"}


def test_a_section_whose_lines_are_all_comments(tmp_path):
    path = yaml_file(tmp_path, "train:\n#  lr: 1\nmodel: {num_keypoints: 4}\n")
    assert check_options(path, read_config(path), "ppl") == {"model": {"num_keypoints": 4}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: " + "[" * 5000 + "]" * 5000, "nested deeper than 100 levels"),
        ("{a: " * 5000, "nested deeper than 100 levels"),
        ("- " * 5000 + "1", "nested deeper than 100 levels"),
        (LAUGHS, "more than 10000 values, with its aliases written out"),
        ("a: &a [*a]", "a value that contains itself"),
        ("a: &a {b: *a}", "a value that contains itself"),
        ("x" * (1 << 17), "bytes long; expected at most"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: !!int ''", "a value that does not fit its tag"),
        ("a: !!bool maybe", "a value that does not fit its tag"),
        ("a: 2020-99-99", "month"),
        ("a: [1", "expected ',' or ']'"),
        ("train: {lr: 1}\nmodel: {}\ntrain: {}", "the key train stands there twice"),
        ("train: {lr: 1, steps: 2, lr: 1}", "the key lr stands there twice"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, sentence):
    path = yaml_file(tmp_path, text)
    with pytest.raises(ValueError, match=sentence):
        read_yaml(path)
    with pytest.raises(ValueError, match=f"^config file {path} is not valid YAML: .*{sentence}"):
        read_config(path)


def test_sections_of_a_config_file_are_of_their_type(tmp_path, capsys):
    for text, sentence in {
        "architecture: [ppl]": "architecture must be text, got list",
        "data: {}": "data must be",
    }.items():
        assert sentence in fails(capsys, "train", "--config", yaml_file(tmp_path, text), "--out", tmp_path / "run")


def test_deep_labels_are_refused(tmp_path):
    (tmp_path / "coco.json").write_text(DEEP)
    with pytest.raises(ValueError, match=r"^load_labels: .*coco.json is no readable JSON: nested deeper"):
        load_labels(tmp_path)


def test_deep_model_config_is_refused(tmp_path, capsys):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/model.safetensors").write_bytes(b"")
    (tmp_path / "m/config.json").write_text(DEEP)
    sentence = fails(capsys, "estimate", tmp_path / "m", tmp_path, "--out", tmp_path / "o.csv")
    assert sentence.startswith(f"{tmp_path}/m/config.json: not a model config (ValueError: nested deeper")


def test_records_that_are_none_are_left_out(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    good = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    lines = [json.dumps(good[0]), DEEP, "[1]", '{"step": "1"}', '{"loss": 1}', "\xff", "x" * 300, json.dumps(good[1])]
    path.write_bytes("\n".join(lines).encode("latin1"))
    monkeypatch.setattr("ppl_fast.training.logging.LONGEST_RECORD", 200)
    assert read_records(path) == good
    RunLog(tmp_path, step=1).close()
    assert path.read_text() == json.dumps(good[0]) + "\n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"step": True}, "step must be a number of steps, got True"),
        ({"step": -1}, "step must be"),
        ({"step": 10**30}, "step must be"),
        ({"seconds": "1"}, "seconds must be a number of at least 0, got 1"),
        ({"seconds": float("nan")}, "seconds must be"),
        ({"images": None}, "images must be text, got None"),
        ({"scaler": [1]}, "scaler must hold numbers for _growth_tracker, .*, got"),
        ({"scaler": {"scale": 1.0}}, "scaler must hold numbers"),
        ({"scaler": {"scale": "x", "growth_factor": 2, "backoff_factor": 1, "growth_interval": 1,
                     "_growth_tracker": 0}}, "scaler must hold numbers"),
        (None, "nested deeper"),
        ([], "it must hold an object, got list"),
    ],
)  # fmt: skip
def test_state_of_the_wrong_form_is_named(images, tmp_path_factory, change, sentence):
    base = tmp_path_factory.getbasetemp() / "state_run"
    if not base.exists():
        run_steps(images, base, 1)
    path = base / "checkpoints/step_0000001/state.json"
    whole = path.read_text()
    path.write_text(DEEP if change is None else json.dumps(change and json.loads(whole) | change))
    try:
        with pytest.raises(ValueError, match=rf"state.json is missing or damaged: {sentence}.*; remove .*step_0000001"):
            run_steps(images, base, 2, resume=True)
    finally:
        path.write_text(whole)


def test_bounds_leave_room_for_what_people_have():
    """COCO's training keypoints are 239 MB long; a published model's config.json has 2 kB."""
    assert _documents.LARGE > 239 << 20
    config = json.dumps(MODELS["extended-ppl"](**MODEL).config)
    assert 100 * len(config) < _documents.SMALL and 10 * len(config) < _documents.SMALL_YAML


def test_numbers_too_large_for_an_array_are_named(tmp_path):
    content = {
        "images": [{"id": 0, "file_name": "0.png"}],
        "annotations": [{"image_id": 0, "category_id": 1, "area": 1, "keypoints": [10**400, 1, 2]}],
        "categories": [{"id": 1, "keypoints": ["a"]}],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"c.json is no valid COCO keypoint file: .*too large"):
        load_labels(tmp_path)
    content["annotations"][0]["keypoints"][0] = 3
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert np.array_equal(load_labels(tmp_path).keypoints, [[[3, 1]]])
