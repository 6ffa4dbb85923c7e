"""evaluate: two models side by side, published data sets by name, and what it refuses."""

import json

import pytest

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("scipy", reason="matching needs the data extra")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from tiny import MODEL, fails

from ppl_fast import PPL, AutoLink
from ppl_fast.cli import main
from ppl_fast.data import ImageFolder, load_labels, make_figures, sets
from ppl_fast.models import PPLConfig

SMALL = {"detector_base": 4, "detector_size": 32, "translator": "light", "translator_base": 4, "translator_levels": 3}
PUBLISHED = {name: value for name, value in MODEL.items() if name in PPLConfig.__dataclass_fields__}
QUICK = ["--masks", "blocks:0.5", "--rounds", "2", "--occlusion-images", "4"]


@pytest.fixture(scope="module")
def ppl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ppl"
    PPL(**PUBLISHED).save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def autolink(tmp_path_factory):
    """Of another image size and number of keypoints."""
    folder = tmp_path_factory.mktemp("runs") / "autolink"
    AutoLink(4, 48, reconstruction_loss="mse", **SMALL).save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Splits of a data set: 30 figures to fit on, 12 to test on."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("fit", 30), ("test", 12)):
        make_figures(root / split, count, size=32, split="test" if split == "test" else "train")
    return root


class Toy(ImageFolder):
    """A data set by name, with splits and a protocol of its own."""

    protocol = {"swap": [(3, 6), (4, 7), (5, 8)], "summed_at": 256, "intercept": True, "norm": "l1"}

    def __init__(self, root, image_size, split, **options):
        super().__init__(root / split, image_size, **options)

    def read_labels(self):
        return load_labels(self.root)


def evaluate(*arguments):
    assert main(["evaluate", *(str(argument) for argument in arguments)]) == 0


def test_two_models_side_by_side(ppl, autolink, figures, tmp_path, capsys):
    out = tmp_path / "new" / "both.json"
    evaluate(ppl, figures / "test", "--beside", autolink, "--out", out, "--train-data", figures / "fit", *QUICK)
    metrics, shown = json.loads(out.read_text()), capsys.readouterr().out
    beside = metrics["beside"]["AutoLink"]
    assert metrics["model"] == "PPL" and metrics["images"] == beside["images"] == {"train": 30, "test": 12}
    assert [len(result["occlusion"]["rows"][0]["rounds"]) for result in (metrics, beside)] == [3, 1]
    lines = [line.split() for line in shown.splitlines()]
    for measure in ("regression", "matching", "pck", "limb_share"):
        first = lines.index(next(line for line in lines if line[:2] == [measure, "PPL"]))
        assert lines[first][2] == f"{metrics[measure]['value']:.4f}"
        assert lines[first + 1][:2] == ["AutoLink", f"{beside[measure]['value']:.4f}"]
    rows = [number for number, line in enumerate(lines) if line[:3] == ["blocks", "50%", "PPL"]]
    for row, measure in zip(rows, ("ridge", "rounds", "pck"), strict=True):  # of 30 images least squares overfits
        assert lines[row][3:6] == [f"{error:.4f}" for error in metrics["occlusion"]["rows"][0][measure]]
        assert lines[row + 1] == ["AutoLink", f"{beside['occlusion']['rows'][0][measure][0]:.4f}"]
    measures = [line[0] for line in lines if line[1:2] == ["PPL"]]
    assert metrics["leading"] == "ridge" and measures.index("ridge") < measures.index("regression")
    assert "predicted by the ridge regression" in metrics["pck"]["protocol"]
    assert "0 rounds   1 round  2 rounds" in shown
    for name, result in (("PPL", metrics), ("AutoLink", beside)):  # 6 and 4 keypoints: the protocols differ
        assert f"    {name}: {result['regression']['protocol']}" in shown
    assert (out.parent / "both_occlusion_curve.png").stat().st_size > 0


def test_a_published_set_brings_its_splits_and_its_protocol(ppl, figures, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sets.SETS, "toy", Toy)
    out = tmp_path / "metrics.json"
    evaluate(ppl, f"toy:{figures}", "--out", out, *QUICK)
    metrics, shown = json.loads(out.read_text()), capsys.readouterr().out
    assert metrics["images"] == {"train": 30, "test": 12} and "beside" not in metrics
    for measure in ("regression", "pck", "occlusion"):
        assert "left and right swapped" in metrics[measure]["protocol"] and metrics[measure]["protocol"] in shown
    for text in ("with intercept", "L1 distance |dx| + |dy|", "pixels at 256, summed over the joints"):
        assert text in metrics["regression"]["protocol"]
    assert metrics["regression"]["baseline"] > 50  # 15 joints in pixels at 256, not a fraction of the image
    assert metrics["occlusion"]["clean"] > 5


def test_two_runs_of_one_architecture_go_by_their_paths(ppl, figures, tmp_path):
    other = tmp_path / "other"
    PPL(**PUBLISHED).save_pretrained(other)
    evaluate(ppl, figures / "test", "--beside", other, "--out", tmp_path / "m.json", "--occlusion-images", "0")
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["model"] == str(ppl) and list(metrics["beside"]) == [str(other)] and "occlusion" not in metrics
    assert not (tmp_path / "m_occlusion_curve.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--masks", "blocks:half"], "--masks must list KIND:SHARE such as blocks:0.5, got 'blocks:half'"),
        (["--masks", "stripes:0.5"], "kind must be 'centre', 'random' or 'blocks', got 'stripes'"),
        (["--masks", "centre:0.2,blocks:1"], "share must lie between 0 and 1, got 1.0"),
        (["--rounds", "-1"], "--rounds must be at least 0, got -1"),
        (["--beside", "nowhere"], "nowhere is no run directory"),
    ],
)
def test_wrong_options_are_named_before_any_work(options, message, ppl, figures, tmp_path, capsys):
    assert message in fails(capsys, "evaluate", ppl, figures / "test", "--out", tmp_path / "m.json", *options)
    assert not list(tmp_path.iterdir())


def test_one_run_beside_itself_is_refused(ppl, figures, capsys):
    assert f"must name another run than RUN, got {ppl}" in fails(
        capsys, "evaluate", ppl, figures / "test", "--beside", ppl
    )


def test_images_without_labels_are_named(ppl, images, tmp_path, capsys):
    message = f"expected labels (keypoints.npz or COCO keypoint JSON) in {images}, got none"
    assert message in fails(capsys, "evaluate", ppl, images, "--out", tmp_path / "m.json")
    assert not list(tmp_path.iterdir())
