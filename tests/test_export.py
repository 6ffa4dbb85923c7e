"""Exported models: run by other runtimes, in processes without ppl_fast, they give what the model gives."""

import json
import subprocess
import sys
from dataclasses import replace

import cuda_emulator
import numpy as np
import pytest
import torch
from model_cases import pictures, tiny
from tiny import draw_images, fails

from ppl_fast import _library
from ppl_fast.cli import main
from ppl_fast.data import ImageFolder
from ppl_fast.export import FORMATS, Estimator, export, int8
from ppl_fast.inference import Calibration
from ppl_fast.inference.confidence import gather
from ppl_fast.models import AutoLink
from ppl_fast.models.checkpoint import CALIBRATION, digest_of_weights
from ppl_fast.naming import JointNetwork, JointNetworks, NamedJoints
from ppl_fast.naming.linear import LinearMap
from ppl_fast.options.export import SUFFIXES

TOLERANCE = 1e-4
BATCHES = (1, 2, 5)
ALONE = "import sys\nimport numpy as np\nsys.modules['ppl_fast'] = None\n"
LOOP = """
for i in range({count}):
    np.savez(f"found{{i}}.npz", **run(dict(np.load(f"given{{i}}.npz"))))
print(about)
"""
ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession(file)
names = [output.name for output in session.get_outputs()]
about = session.get_modelmeta().custom_metadata_map["ppl_fast"]
def run(given): return dict(zip(names, session.run(None, given)))
"""
TORCH = """
import torch
def run(given): return {name: found.numpy() for name, found in model(*map(torch.from_numpy, given.values())).items()}
"""
TORCHEXPORT = f"{TORCH}kept = {{'ppl_fast': ''}}\nmodel = torch.export.load(file, extra_files=kept).module()\n"
TORCHEXPORT += "about = kept['ppl_fast']\n"
AOTI = f"{TORCH}model = torch._inductor.aoti_load_package(file)\nabout = model.get_metadata()['ppl_fast']\n"


def ran(code, file, batches, out):
    """What a process without ppl_fast finds for each batch, and what the file says of itself."""
    for i, given in enumerate(batches):
        np.savez(out / f"given{i}.npz", **given)
    script = f"{ALONE}file = {str(file)!r}\n{code}{LOOP.format(count=len(batches))}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stderr
    return [dict(np.load(out / f"found{i}.npz")) for i in range(len(batches))], json.loads(done.stdout)


def agree(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=TOLERANCE, err_msg=name)


def ramp(model, images, visible):
    """A calibration whose knots lie among the scores of these images."""
    evidence = gather(model, images, 2, visible)[1]
    arrays = {name: np.stack([each.mean(0) for each in evidence.values()]) for name in ("usual", "scale")}
    arrays["scale"] = np.stack([each.std(0) + 0.1 for each in evidence.values()])
    keypoints = len(model.links.unique())
    made = Calibration(
        names=list(evidence),
        **arrays,
        weights=np.linspace(0.2, 1, 2 * len(evidence)),
        offsets=np.linspace(-0.1, 0.1, keypoints),
        scores=np.array([-0.5, -0.1, 0.0, 0.2, 0.8]),
        errors=np.array([0.01, 0.02, 0.05, 0.1, 0.3]),
        likelihoods=np.array([0.95, 0.9, 0.5, 0.4, 0.1]),
        frames=20,
    )
    assert ((made.score(evidence) > -0.5) & (made.score(evidence) < 0.8)).mean() > 0.1
    return made


def joints_of(model, count=3):
    rng = np.random.default_rng(0)
    members = [JointNetwork.beside(model, count) for _ in range(2)]
    network = JointNetworks(members, torch.ones(2, count, dtype=torch.bool)).eval()
    map_ = LinearMap(rng.normal(size=(5, 2, count, 2)) / 5, rng.normal(size=(count, 2)) / 5)
    names = [f"joint{i}" for i in range(count)]
    report = {"joints": {name: {"within": 0.8 - 0.2 * i, "error": 0.02 * (i + 1)} for i, name in enumerate(names)}}
    return NamedJoints(names, [(0, 1)], map_, np.linspace(0, 1, count), network, np.zeros((1, 5, 2)), report)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A saved model with a calibration and named joints, and what belongs to it."""
    torch.manual_seed(0)
    folder, model = tmp_path_factory.mktemp("model"), tiny().eval()
    for name, value in model.memory.named_buffers():
        if name == "codebook":  # spread out, so that no token lies between two vectors
            value.mul_(3)
    model.save_pretrained(folder)
    visible = torch.rand(8, 1, 32, 32) > 0.3
    calibration, joints = ramp(model, pictures(8), visible), joints_of(model)
    replace(calibration, model=digest_of_weights(folder)).save(folder / CALIBRATION)
    joints.save(folder)
    return folder, model, calibration, joints


@pytest.mark.slow
def test_onnx_gives_rounds_confidence_and_joints(run, tmp_path, capsys):
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="ONNX needs the export extra")
    folder, model, calibration, joints = run
    file = tmp_path / "pose.onnx"
    assert main(["export", str(folder), "--out", str(file), "--iterations", "2", "--visible"]) == 0
    said = capsys.readouterr().out
    batches = []
    for b in BATCHES:
        hidden = torch.rand(b, 1, 32, 32, generator=torch.Generator().manual_seed(b)) > 0.3
        batches.append({"images": pictures(b, seed=b).numpy(), "visible": hidden.numpy()})
    found, about = ran(ONNX, file, batches, tmp_path)
    for given, each in zip(batches, found, strict=True):
        images, visible = map(torch.from_numpy, given.values())
        keypoints, evidence = gather(model, images, 2, visible)
        seen = model.estimate_rounds(images, 2, visible)[-1][1]
        likelihood, error = calibration.judge(evidence)
        expected = {"keypoints": keypoints.numpy(), "confidence": likelihood, "expected_error": error}
        expected["joints"] = joints(seen, keypoints.double().numpy())
        expected["joint_confidence"], expected["joint_expected_error"] = joints.judged(likelihood, error)
        agree(each, expected)
    assert about["inputs"]["images"]["shape"] == ["batch", 3, 32, 32] and about["iterations"] == 2
    assert about["joints"] == joints.names and about["skeleton"] == [[0, 1]] and about["links"] == model.links.tolist()
    assert about["framing"]["fit"] == "squash"
    assert all(f"{kind:<7}{name} " in said for kind in ("input", "output") for name in about[f"{kind}s"])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_torchexport_is_loaded_by_torch_alone(tmp_path):
    torch.manual_seed(0)
    model = AutoLink(num_keypoints=4, image_size=32, width=0.1, detector_size=32, reconstruction_loss="mse").eval()
    with torch.no_grad():
        model.detector.maps.weight.mul_(300)  # attention to few cells, of which there is something to be sure
    export(model, tmp_path / "pose.pt2", "torchexport")
    batches = [{"images": pictures(b, seed=b).numpy()} for b in BATCHES]
    found, about = ran(TORCHEXPORT, tmp_path / "pose.pt2", batches, tmp_path)
    for given, each in zip(batches, found, strict=True):
        expected = Estimator(model)(torch.from_numpy(given["images"]))
        agree(each, {name: value.numpy() for name, value in expected.items()})
        assert 1e-3 < each["confidence"].mean() < 0.99
        np.testing.assert_allclose(each["keypoints"], model.estimate(torch.from_numpy(given["images"])), atol=TOLERANCE)
    assert about["architecture"] == "autolink" and list(about["outputs"]) == ["keypoints", "confidence"]


@pytest.mark.slow
def test_a_compiled_package_is_loaded_by_torch_alone(run, tmp_path):
    _, model, *_ = run
    export(model, tmp_path / "pose.pt2", "aoti", confidence=False)
    batches = [{"images": pictures(b, seed=b).numpy()} for b in BATCHES]
    found, about = ran(AOTI, tmp_path / "pose.pt2", batches, tmp_path)
    for given, each in zip(batches, found, strict=True):
        agree(each, {"keypoints": model.estimate(torch.from_numpy(given["images"])).numpy()})
    assert about["format"] == "aoti" and about["outputs"]["keypoints"]["shape"] == ["batch", 5, 2]


@pytest.mark.slow
def test_int8_says_how_far_it_moves_keypoints_and_joints(run, tmp_path, capsys):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="ONNX needs the export extra")
    import onnx

    folder, model, _, joints = run
    file, images = tmp_path / "pose.onnx", draw_images(tmp_path / "images", 24, seed=3)
    assert main(["export", str(folder), "--out", str(file), "--int8", str(images)]) == 0
    said = capsys.readouterr().out
    seen = torch.stack([each for each in ImageFolder(images, 32)])
    batches = [{"images": part.numpy()} for part in (seen[:12], seen[12:])]
    (_, found), about = ran(ONNX, file, batches, tmp_path)
    expected = {"keypoints": model.estimate(seen[12:]).numpy()}
    expected["joints"] = joints(seen[12:], expected["keypoints"].astype(np.float64))
    assert list(found) == ["keypoints", "joints"] and about["int8"]["images"] == 12
    for name, points in expected.items():
        off = np.linalg.norm(found[name] - points, axis=2) / 2
        measured = about["int8"]["moved"][name]
        assert measured["mean"] == pytest.approx(off.mean(), rel=1e-2) and off.mean() > 1e-5
        assert measured["p99"] == pytest.approx(np.quantile(off, 0.99), rel=1e-2)
        assert f"int8 moves {name} by {off.mean():.4f} of the side in the mean" in said
    kinds = {tensor.data_type for tensor in onnx.load(file).graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT}  # of all convolutions, and of the maps


def test_int8_that_moves_keypoints_far_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "quantize", lambda *_: None)
    found = [[np.zeros((1, 2, 2))], [np.full((1, 2, 2), 0.03)]]
    monkeypatch.setattr(int8, "found_by", lambda *_: found.pop(0))
    with pytest.raises(
        ValueError, match=r"export: int8 moves the keypoints by 0.0212 of the side in the mean, more than"
    ):
        int8.quantized(tmp_path, tmp_path, np.zeros((20, 3, 32, 32), np.float32), ["keypoints"])


def test_what_int8_is_not_for(tmp_path):
    some = pictures(20)
    for images, options, sentence in (
        (some, {"format": "torchexport"}, "int8 is for the format onnx alone, got torchexport"),
        (some, {"iterations": 2}, "int8 is for one pass from images to keypoints; leave out iterations"),
        (some, {"visible": True}, "leave out visible"),
        (some, {"confidence": True}, "leave out confidence"),
        (some[:9], {}, r"int8 must be images \(n, 3, 32, 32\), n at least 20, .* got shape \(9, 3, 32, 32\)"),
    ):
        path = tmp_path / f"a{SUFFIXES[options.get('format', 'onnx')]}"
        with pytest.raises(ValueError, match=sentence):
            export(tiny(), path, **({"confidence": False} | options), int8=images)
    assert list(tmp_path.iterdir()) == []


def test_every_operator_has_its_decomposition():
    found = _library.decompositions()
    registered = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("ppl_fast::")]
    siblings = tuple(f"_{kind}" for kind in (*cuda_emulator.BUILDS, "alone"))  # of other tests in this process
    assert {op.name() for op in found} == {name for name in registered if not name.endswith(siblings)}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "a.pt2"], "--out must end in .onnx for --format onnx, got a.pt2"),
        (["--out", "a.onnx", "--format", "aoti"], "--out must end in .pt2 for --format aoti, got a.onnx"),
        (["--out", "a.onnx", "--iterations", "0"], "--iterations must be at least 1, got 0"),
        (["--out", "a.onnx", "--format", "tflite"], "option format must be one of 'onnx', 'torchexport', 'aoti', got"),
        (["--out", "a.onnx", "--device", "cuda"], "--device is for --format aoti alone"),
        (["--out", "a.pt2", "--format", "aoti", "--int8", "photos"], "--int8 is for --format onnx alone, got aoti"),
        (
            ["--out", "a.onnx", "--int8", "photos", "--iterations", "2"],
            "from images to keypoints; leave out --iterations",
        ),
        (["--out", "a.onnx", "--int8", "photos", "--confidence", "true"], "leave out --confidence"),
        (["--out", "a.onnx"], "nowhere is no run directory"),
    ],
)
def test_wrong_options_are_named_before_any_work(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sentence in fails(capsys, "export", "nowhere", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(tmp_path):
    model = AutoLink(num_keypoints=4, image_size=32, width=0.1, reconstruction_loss="mse")
    with pytest.raises(ValueError, match="AutoLink: iterations must be 1"):
        export(model, tmp_path / "a.onnx", iterations=2)
    with pytest.raises(ValueError, match="export: format must be one of onnx, torchexport, aoti, got 'tflite'"):
        export(model, tmp_path / "a.onnx", "tflite")
    with pytest.raises(ValueError, match=r"a file of the format torchexport must end in .pt2, got .*a.onnx"):
        export(model, tmp_path / "a.onnx", "torchexport")
    with pytest.raises(TypeError, match="export: model must be a KeypointModel, got Linear"):
        export(torch.nn.Linear(2, 2), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == [] and list(FORMATS) == list(SUFFIXES)
