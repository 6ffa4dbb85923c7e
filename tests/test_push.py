"""Models that are sent to a stand-in of the hub, and read from it by the commands: what is sent, and nothing else."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from hub_stand_in import Repository, serving
from model_cases import pictures, tiny

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("huggingface_hub", reason="names on the hub need the hub extra")
pytest.importorskip("matplotlib", reason="a card's pictures need the viz extra")

from page_cases import METRICS
from test_export import joints_of, ramp
from tiny import fails, run_steps

from ppl_fast.cli import main
from ppl_fast.models import card, hub, load_pretrained
from ppl_fast.models.checkpoint import CALIBRATION, JOINTS, JOINTS_REPORT, digest_of_weights
from ppl_fast.page.sending import fill
from ppl_fast.training import load_framing
from ppl_fast.training.config import read_config

SECRET = "secret"  # in every path and name that is nobody's business
CODE = """
import contextlib, io, json, sys
from ppl_fast.cli import main
done = []
for command in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    done.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""


def commands(address, cache, *given, **variables):
    """Exit code and what was printed of each command, in one process, which reads the hub's settings at its start."""
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_mine"}
    text = json.dumps([[str(word) for word in command] for command in given])
    done = subprocess.run(
        [sys.executable, "-c", CODE], input=text, env=os.environ | settings | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def photos(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp(SECRET) / "photos"
    folder.mkdir()
    for i, file in enumerate(sorted(images.iterdir())):
        (folder / f"{SECRET}{i}.png").write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos):
    """A run with all that may be sent, whose options name paths."""
    out = tmp_path_factory.mktemp(SECRET) / "mine"
    model = {"perceptual_weights": str(photos / "vgg.pth")}
    run_steps(photos, out, 2, model=model, fit="pad", crop_margin=0.5, picture_every=2)
    trained = load_pretrained(out / "model")
    visible = torch.rand(8, 1, 32, 32) > 0.3
    calibration = ramp(trained, pictures(8), visible)
    vars(calibration)["model"] = digest_of_weights(out / "model")
    calibration.save(out / "model" / CALIBRATION)
    joints = joints_of(trained)
    vars(joints)["map"].slope.resize((6, 2, 3, 2), refcheck=False)
    joints.save(out / "model")
    notes = [f"2 images have no label, such as {SECRET}1.png"]
    (out / "evaluation.json").write_text(json.dumps(METRICS | {"notes": notes, "model": str(out)}))
    return out


def test_what_is_sent_is_whole_and_names_nothing_of_the_machine(run, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    notes = fill(there, run, "lab/mice", "cc-by-4.0")
    assert notes == ["poses.png is left out, since it shows images of the training; --poses sends it"]
    expected = {"model.safetensors", "config.json", "config.yaml", CALIBRATION, JOINTS, JOINTS_REPORT}
    assert {path.name for path in there.iterdir()} == expected | {"README.md", "prior.png"}
    for path in there.iterdir():
        content = path.read_bytes()
        assert SECRET.encode() not in content and os.fsencode(run.parent) not in content, path
    assert (there / "model.safetensors").read_bytes() == (run / "model/model.safetensors").read_bytes()
    assert load_framing(there) == load_framing(run) and load_framing(there).fit == "pad"
    assert read_config(there / "config.yaml").keys() == {"architecture", "model", "train"}
    text = (there / "README.md").read_text()
    for part in (
        "---\nlibrary_name: ppl_fast\nlicense: cc-by-4.0\n", "# lab/mice\n", "![The pose prior](prior.png)",
        "10 images, of 40 x 30 pixels", "2 steps", "| training | fit | pad |", "| model | num\\_keypoints | 6 |",
        "| regression | 0.03 | 0.09 | mean pose |", "8 training and 2 test images", "`ppl-fast name`",
        'ppl_fast.ExtendedPPL.from_pretrained("lab/mice")', "ppl-fast estimate lab/mice photos/",
    ):  # fmt: skip
        assert part in text, part
    untold = ("device", "workers", "picture", "tensorboard", "tracker")
    assert not [name for name in untold if f"| training | {name}" in text]


def test_a_folder_of_masks_is_not_named_and_options_of_before_are(run, tmp_path):
    there, other = tmp_path / "there", tmp_path / "run"
    there.mkdir()
    shutil.copytree(run, other)
    written = yaml.safe_load((other / "config.yaml").read_text())
    written["train"] |= {
        "masks": f"/{SECRET}/masks",
        "labels": f"/{SECRET}/few.csv",
        "cache": True,
        "tensorboard": False,
    }
    del written["train"]["tracker"]
    (other / "config.yaml").write_text(yaml.safe_dump(written))
    fill(there, other, "lab/mice", "mit")
    assert not [path for path in there.iterdir() if SECRET.encode() in path.read_bytes()]
    sent = read_config(there / "config.yaml")["train"]
    assert sent["masks"] == "masks" and sent["tracker"] == "none" and not {"tensorboard", "cache"} & set(sent)
    text = (there / "README.md").read_text()
    assert "| training | masks | masks |" in text and "labels of a few" in text and sent["labels"] == "labels"


def test_what_is_left_out_is_said(run, tmp_path, capsys):
    os.utime(run / "evaluation.json", (0, 0))
    try:
        out = tmp_path / "there"
        assert main(["push", str(run), "lab/mice", "--license", "mit", "--poses", "--out", str(out)]) == 0
    finally:
        os.utime(run / "evaluation.json")
    said = capsys.readouterr().out
    assert f"wrote {out}; nothing was sent" in said and "since the weights are newer than it" in said
    text = (out / "README.md").read_text()
    assert "## Evaluation" not in text and "![Poses on images of the training](poses.png)" in text
    assert (out / "poses.png").read_bytes() == (run / "poses.png").read_bytes()
    checkpoint = next((run / "checkpoints").iterdir())
    assert "no poses.png of a run with these" in fails(
        capsys, "push", checkpoint, "lab/mice", "--license", "mit", "--poses", "--out", tmp_path / "other"
    )
    assert not (tmp_path / "other").exists()


def test_a_damaged_run_is_not_sent(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hub, "send", lambda *_, **__: pytest.fail("sent"))
    kept = (run / "model" / JOINTS).read_bytes()
    try:
        (run / "model" / JOINTS).write_bytes(kept[:-8])
        assert JOINTS in fails(capsys, "push", run, "lab/mice", "--license", "mit")
    finally:
        (run / "model" / JOINTS).write_bytes(kept)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lab/mice"], "push: --license must say under which licence others may use the model"),
        (["lab/mice", "--license", "M I T"], "license must be an identifier as the hub has them"),
        (["mice", "--license", "mit"], "push: a model on the hub is named org/name, got mice"),
        (["lab/mice@v1", "--license", "mit"], "push: a model on the hub is named org/name, got lab/mice@v1"),
        (["lab/mice", "--license", "mit"], "nowhere is no run directory"),
    ],
)
def test_wrong_words_are_named(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sentence in fails(capsys, "push", "nowhere", *arguments)


def test_text_of_a_card_stands_for_itself():
    assert card.table(["a"], [["x|y <b>\n_z_"]]).splitlines()[-1] == r"| x\|y \<b\> \_z\_ |"


def test_other_files_are_never_sent(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"push: expected none but model.safetensors, .* got pytorch_model.bin"):
        hub.send(tmp_path, "lab/mice")


@pytest.mark.slow
def test_a_run_is_sent_and_the_commands_read_it(run, photos, tmp_path):
    repository = Repository("lab/mice", None, tmp_path / "hub")
    push = ["push", run, "lab/mice", "--license", "mit"]
    out, local = tmp_path / "hub.csv", tmp_path / "local.csv"
    with serving(repository) as address:
        pushed = commands(
            address, tmp_path / "cache",
            [*push, "--private", "--out", tmp_path / "look"],
            [*push, "--private"],
            [*push, "--private", "--revision", "v1"],
            ["estimate", "lab/mice", photos, "--out", out],
            ["estimate", "lab/mice@v1", photos, "--out", tmp_path / "v1.csv"],
            ["view", "lab/mice", "--out", tmp_path / "page.html"],
            ["view", "lab/mice"],
            ["estimate", "lab/mice@v2", photos, "--out", out],
            ["calibrate", "lab/mice", photos],
            ["train", photos, "--from", "lab/mice", "--steps", "1", "--out", tmp_path / "from", "--picture-every", "0",
             "--device", "cpu", "--batch-size", "4", "--workers", "0", "--tracker", "none"],
        )  # fmt: skip
        assert [code for code, *_ in pushed] == [0, 0, 0, 0, 0, 0, 2, 2, 2, 0], [err for *_, err in pushed]
        assert pushed[1][1].endswith(f"sent lab/mice: {address}/lab/mice/commit/1\n") and repository.private
        files = {path.name: path.read_bytes() for path in (tmp_path / "look").iterdir()}
        for branch in ("main", "v1"):
            there = {path.name: path.read_bytes() for path in repository.folders[branch].iterdir()}
            assert there.keys() == files.keys() and there["model.safetensors"] == files["model.safetensors"]
        assert "lab/mice@v1 photos/" in (repository.folders["v1"] / "README.md").read_text()
        assert main(["estimate", str(run), str(photos), "--out", str(local)]) == 0
        assert out.read_bytes() == (tmp_path / "v1.csv").read_bytes() == local.read_bytes()
        assert "<title>lab/mice" in (tmp_path / "page.html").read_text()
        sentences = [err.rpartition("error: ")[2].strip() for *_, err in pushed]
        assert sentences[6] == "--out must say where to write, since lab/mice is no folder"
        assert sentences[7] == "lab/mice on the hub has no revision v2"
        assert sentences[8].startswith("calibrate: what it makes is kept beside the model, so RUN must be a folder")
        assert "tensors are taken over" in pushed[9][1]
    offline, gone = (
        commands(address, tmp_path / "cache", push, ["export", "lab/mice@v1", "--out", "a.pt2"], **more)
        for more in ({"HF_HUB_OFFLINE": "1"}, {})
    )
    assert offline[0][2].strip().endswith("push: lab/mice was not sent to the hub: HF_HUB_OFFLINE is set")
    assert f"push: lab/mice was not sent to the hub: {address}" in gone[0][2]
    assert "Traceback" not in offline[0][2] + gone[0][2]


@pytest.mark.slow
def test_models_are_sent_again_refused_and_kept_private(tmp_path):
    repository = Repository("lab/mice", None, tmp_path / "hub")
    code = """
import sys, torch
from model_cases import tiny
from ppl_fast.models import hub
def said(**options):
    try:
        return tiny(perceptual_weights="/secret/vgg.pth").push_to_hub("lab/mice", license="mit", **options)
    except (OSError, ValueError) as error:
        print(type(error).__name__, error)
said()
input()
said(private=True)
input()
said()
"""
    with serving(repository) as address:
        settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
        settings |= {"HF_TOKEN": "hf_mine", "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | settings, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            process.stdin.write("\n")
            line = process.stdout.readline()
            there = repository.folders["main"]
            sent = {path.name for path in there.iterdir()}
            (there / JOINTS).write_bytes(b"of an earlier model")
            repository.refused = 403
            process.stdin.write("\n")
            rest, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert not process.returncode, err
    assert sent == {"README.md", "config.json", "model.safetensors"}
    assert "secret" not in (there / "config.json").read_text()
    assert line.startswith("ValueError push: lab/mice is there already, and public")
    assert rest.startswith("OSError push: lab/mice was not sent to the hub: it refuses (HTTP 403); log in by")
    assert load_pretrained(there).config | {"perceptual_weights": ""} == tiny().config | {"perceptual_weights": ""}
