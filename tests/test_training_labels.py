"""Labels inside the training: the first keypoints of a run are the joints of a few labelled images."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("accelerate", reason="training needs the train extra")

from model_cases import losses_of_steps, pictures, tiny
from published_cases import SMALL_AUTOLINK
from test_views import spots
from tiny import draw_images, fails, run_steps

from ppl_fast import ExtendedAutoLink
from ppl_fast.cli import main
from ppl_fast.data import Labels, make_figures
from ppl_fast.models.joints import JointLabels, NamedKeypoints, joint_distance, labelled_views
from ppl_fast.naming import Labelled, load_joints
from ppl_fast.options.extended import ExtensionConfig
from ppl_fast.training import load_model
from ppl_fast.training.joints import TrainingLabels
from ppl_fast.training.warm_start import reorder

NAMES = ["nose", "tail", "paw"]


def labels_of(images, count=3, seed=1):
    joints = torch.rand(len(images), count, 2, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.6
    return JointLabels(images, joints, torch.ones(len(images), count, dtype=torch.bool))


class TestViews:
    def test_joints_move_with_what_they_lie_on(self):
        torch.manual_seed(0)
        joints = torch.rand(6, 1, 2) - 0.5
        amounts = ExtensionConfig(view_turn=40.0, view_colour=0.0)
        given = JointLabels(spots(joints).expand(-1, 3, -1, -1), joints, torch.ones(6, 1, dtype=torch.bool))
        view = labelled_views(given, 40, amounts)
        assert view.images.shape == (40, 3, 65, 65) and view.shown.all()
        height = F.grid_sample(view.images[:, :1], view.joints[:, None], align_corners=True).flatten()
        assert height.min() > 0.93

    def test_what_left_the_view_or_is_not_labelled_does_not_count(self):
        torch.manual_seed(0)
        joints = torch.tensor([[[0.98, 0.0], [0.0, 0.0], [0.1, 0.1]]])
        shown = torch.tensor([[True, True, False]])
        view = labelled_views(JointLabels(pictures(1), joints, shown), 50, ExtensionConfig(view_shift=0.3))
        inside = (view.joints.abs() <= 1).all(dim=2)
        assert torch.equal(view.shown, inside & shown) and 0 < view.shown[:, 0].sum() < 50 == view.shown[:, 1].sum()


def test_distance_is_the_mean_over_what_is_labelled():
    found = torch.tensor([[[0.3, 0.4], [9.0, 9.0]], [[0.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    shown = torch.tensor([[True, False], [True, True]])
    distance = joint_distance(found, JointLabels(pictures(2), torch.zeros(2, 2, 2), shown))
    assert distance.item() == pytest.approx((0.5 + 0.01 + 1) / 3, abs=1e-3)
    distance.backward()
    assert torch.isfinite(found.grad).all() and not found.grad[0, 1].any()
    assert joint_distance(found, JointLabels(pictures(2), torch.zeros(2, 2, 2), shown & False)) == 0


def autolink(**options):
    torch.manual_seed(0)
    return ExtendedAutoLink(**(SMALL_AUTOLINK | {"reconstruction_loss": "mse"} | options))


@pytest.mark.parametrize("make", [tiny, autolink])
class TestTerm:
    def test_the_first_keypoints_are_drawn_to_the_labels(self, make):
        model = make(joints_weight=5.0, joints_ramp=0.5).train()
        size = model.settings.image_size
        labels = labels_of(pictures(2, size=size))
        model.terms = (*model.terms, NamedKeypoints(labels, 4))
        model.progressed(0.25)
        before = model(pictures(2, size=size)).losses["joints"].item()
        model.progressed(0.5)
        torch.manual_seed(0)
        losses = losses_of_steps(model, pictures(2, size=size), steps=15, lr=1e-2)
        after = model(pictures(2, size=size)).losses["joints"].item()
        assert after < 0.75 * 2 * before and losses[-1] < losses[0]
        assert "joints" not in model.eval()(pictures(2, size=size)).losses

    def test_nothing_else_of_a_step_changes(self, make):
        found = []
        for taught in (False, True):
            model = make().train()
            images = pictures(2, size=model.settings.image_size)
            if taught:
                model.terms = (*model.terms, NamedKeypoints(labels_of(images), 4))
            torch.manual_seed(3)
            found.append({name: value.item() for name, value in model(images).losses.items()})
        plain, taught = found
        assert taught.pop("joints") > 0 and taught == plain


OPTIONS = {"head": "position"}


def few(folder, names=NAMES, count=4):
    """Labels of the first images in a folder of `draw_images`."""
    files = [f"{i}.png" for i in range(count)]
    joints = np.random.default_rng(0).uniform(4, 26, (count, len(names), 2))
    visible = np.ones((count, len(names)), bool)
    visible[0, 0] = False
    return Labels(files, np.where(visible[..., None], joints, np.nan), visible, names, [(0, 1)])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Images, labels of some in a file beside, and a run on them."""
    folder = tmp_path_factory.mktemp("joint")
    few(draw_images(folder / "images")).save(folder / "few.npz")
    run_steps(folder / "images", folder / "run", 6, model=OPTIONS, labels=str(folder / "few.npz"))
    return folder


def weights(run):
    return (run / "model/model.safetensors").read_bytes()


class TestRun:
    def test_it_goes_on_bit_for_bit_and_learns_from_the_labels(self, straight, tmp_path):
        options = {"model": OPTIONS, "labels": str(straight / "few.npz")}
        run_steps(straight / "images", tmp_path / "run", 3, **options)
        # What ppl-fast name may have left there since is of the model as it was.
        (tmp_path / "run/model/joints.safetensors").write_bytes(b"")
        with pytest.raises(ValueError, match="joints.safetensors: no named joints"):
            run_steps(straight / "images", tmp_path / "run", 6, resume=True, **options)
        (tmp_path / "run/model/joints.safetensors").unlink()
        run_steps(straight / "images", tmp_path / "run", 6, resume=True, **options)
        assert weights(tmp_path / "run") == weights(straight / "run")
        run_steps(straight / "images", tmp_path / "without", 6, model=OPTIONS)
        assert weights(tmp_path / "without") != weights(straight / "run")
        logged = [json.loads(line)["losses"] for line in (straight / "run/log.jsonl").read_text().splitlines()]
        assert all(losses["joints"] > 0 for losses in logged)

    def test_the_joints_are_the_first_keypoints_by_name(self, straight):
        model = load_model(straight / "run").eval()
        joints = load_joints(straight / "run/model", model)
        assert joints.names == NAMES and joints.skeleton == [(0, 1)] and joints.network is None
        keypoints = model.estimate(pictures(3)).double().numpy()
        assert np.array_equal(joints(pictures(3), keypoints), keypoints[:, :3])
        sure = np.random.default_rng(0).random((3, 6))
        np.testing.assert_allclose(joints.mixed(sure), sure[:, :3], atol=1e-6)

    def test_naming_them_anew_says_what_the_run_has_seen(self, straight, tmp_path, capsys):
        shutil.copytree(straight / "run", tmp_path / "run")
        arguments = [tmp_path / "run", straight / "images", "--labels", straight / "few.npz", "--network", "false"]
        assert main(["name", *map(str, arguments)]) == 0
        assert "note: the run was trained with labels" in capsys.readouterr().out

    def test_labels_that_lie_elsewhere_have_images_of_their_own(self, straight, tmp_path, capsys):
        few(draw_images(tmp_path / "other", seed=4)).save(tmp_path / "other/keypoints.npz")
        run_steps(straight / "images", tmp_path / "run", 2, model=OPTIONS, labels=str(tmp_path / "other"))
        told = capsys.readouterr().out
        assert "4 labelled images in" in told and "of 6 keypoints the first 3 are nose, tail, paw" in told
        assert "6 of 10 images have no label" in told

    def test_a_run_without_labels_is_a_beginning(self, straight, tmp_path, capsys):
        run_steps(straight / "images", tmp_path / "first", 2, model=OPTIONS)
        options = ["--labels", straight / "few.npz", "--steps", "1", "--device", "cpu", "--picture-every", "0"]
        options += ["--num-keypoints", "8"]
        arguments = [straight / "images", "--from", tmp_path / "first", "--out", tmp_path / "run", *options]
        assert main(["train", *map(str, arguments), "--workers", "0", "--tracker", "none"]) == 0
        assert "3 joints begin as the keypoints nearest to them, 0." in capsys.readouterr().out
        assert load_joints(tmp_path / "run/model", load_model(tmp_path / "run")).names == NAMES


@pytest.mark.parametrize("make", [tiny, autolink])
def test_keypoints_get_the_numbers_of_the_joints_they_lie_at(make):
    model = make().eval()
    images = pictures(4, size=model.settings.image_size)
    number = model.settings.num_keypoints
    rest = np.random.default_rng(0).permutation(number)
    known = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before, links = model.estimate(images), model.connectivity()
    joints = before[:, rest[:3]].double().numpy()
    shown = np.ones((4, 3), bool)
    shown[:, 1] = False  # of which nothing is known: it gets the first keypoint that is free
    labels = TrainingLabels(Labelled(images, joints, shown, NAMES), [], "few")
    assert "2 joints begin as the keypoints nearest to them, 0.00 of the image away" in labels.match(model)
    free = [i for i in range(number) if i not in (rest[0], rest[2])]
    order = [int(rest[0]), free[0], int(rest[2]), *free[1:]]
    torch.testing.assert_close(model.estimate(images), before[:, order], atol=1e-6, rtol=0)
    assert torch.equal(model.connectivity(), links[order][:, order]) and not model.training
    reorder(model, np.argsort(order).tolist())
    assert all(torch.equal(tensor, known[name]) for name, tensor in model.state_dict().items())


def test_a_memory_knows_keypoints_by_their_new_numbers():
    model = tiny(memory_layers=2).eval()
    points, order = torch.rand(3, 5, 2), [3, 0, 4, 1, 2]
    recalled, prior = model.memory(points)[0], model.prior().keypoints
    reorder(model, order)
    torch.testing.assert_close(model.memory(points[:, order])[0], recalled[:, order], atol=1e-6, rtol=0)
    torch.testing.assert_close(model.prior().keypoints, prior[order], atol=1e-6, rtol=0)


class TestRefused:
    def refused(self, images, out, sentence, **options):
        with pytest.raises(ValueError, match=sentence):
            run_steps(images, out, 2, **{"model": OPTIONS} | options)

    def test_what_is_no_label_or_does_not_fit(self, straight, tmp_path):
        images = straight / "images"
        self.refused(images, tmp_path / "run", "must be a folder or project that has labels", labels=str(images))
        few(images, names=[*"abcdefg"]).save(tmp_path / "many.npz")
        sentence = "labels of 7 joints need as many keypoints, and better some more; num_keypoints is 6"
        self.refused(images, tmp_path / "run", sentence, labels=str(tmp_path / "many.npz"))
        self.refused(images, tmp_path / "run", "none.npz", labels=str(tmp_path / "none.npz"))
        self.refused(images, tmp_path / "run", "individual needs labels", individual="mouse1")
        assert not (tmp_path / "run").exists()

    def test_a_run_keeps_its_joints(self, straight, tmp_path):
        few(straight / "images", names=NAMES[::-1]).save(tmp_path / "other.npz")
        sentence = "other joints than .*run has, or in another order: paw, tail, nose, where it has nose, tail, paw"
        labels = str(tmp_path / "other.npz")
        self.refused(straight / "images", straight / "run", sentence, labels=labels, resume=True)

    def test_a_command_says_so_in_one_sentence(self, straight, tmp_path, capsys):
        arguments = ["train", straight / "images", "--preset", "small", "--num-keypoints", "2", "--out", tmp_path / "r"]
        assert "labels of 3 joints need" in fails(capsys, *arguments, "--labels", straight / "few.npz")


@pytest.mark.slow
def test_from_a_few_labels_to_joints_by_name(tmp_path, capsys):
    """Every command speaks of the joints, without ppl-fast name; and they are found better than by the mean pose."""
    make_figures(tmp_path / "figures", 40, size=32)
    make_figures(tmp_path / "few", 24, size=32, seed=5)
    run_steps(
        tmp_path / "figures", tmp_path / "run", 200, lr=5e-3, schedule="cosine", labels=str(tmp_path / "few"),
        model=OPTIONS | {"num_keypoints": 18, "regressor_base": 8, "view_turn": 5.0, "view_shift": 0.05},
    )  # fmt: skip
    run, out = str(tmp_path / "run"), str(tmp_path / "poses.csv")
    assert main(["estimate", run, str(tmp_path / "figures"), "--out", out]) == 0
    assert "40 poses of 15 joints" in capsys.readouterr().out
    assert main(["estimate", run, str(tmp_path / "figures"), "--out", out, "--keypoints"]) == 0
    assert "40 poses of 18 keypoints" in capsys.readouterr().out
    assert main(["evaluate", run, str(tmp_path / "figures"), "--occlusion-images", "0"]) == 0
    metrics = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert metrics["named"]["value"] < 0.9 * metrics["regression"]["baseline"]
    assert "train --labels" in metrics["named"]["protocol"]
    page = tmp_path / "page.html"
    assert main(["view", run, str(tmp_path / "few"), "--out", str(page)]) == 0
    assert "left_hand" in page.read_text()
