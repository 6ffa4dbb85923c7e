"""Named joints from few labels: the forms of the map, how they are chosen, the network, and what lies on disk."""

import numpy as np
import pytest
import torch
from model_cases import pictures, tiny
from published_cases import SMALL_AUTOLINK
from safetensors.torch import load_file, save_file

from ppl_fast import ExtendedAutoLink
from ppl_fast.naming import (
    JointNetwork,
    JointNetworks,
    Labelled,
    NamedJoints,
    Schedule,
    fitting,
    forms,
    linear,
    load_joints,
    name_joints,
    steps_of,
)
from ppl_fast.naming.network import predicted, trained
from ppl_fast.naming.suggest import suggested

QUICK = Schedule(steps=4, batch_size=4)
NAMES = ["nose", "tail", "paw"]


def points_of(n, count=6, seed=0):
    return np.random.default_rng(seed).uniform(-0.8, 0.8, (n, count, 2))


def everywhere(joints):
    return np.ones(joints.shape[:2], bool)


def labelled(n=12, seed=1):
    joints = np.random.default_rng(seed).uniform(-0.8, 0.8, (n, 3, 2))
    return Labelled(pictures(n), joints, everywhere(joints), NAMES, [(0, 1)])


class TestForms:
    @pytest.mark.parametrize("name", ["full", "shared", "convex"])
    def test_a_convex_combination_is_found_by_every_form(self, name):
        points = points_of(60)
        joints = np.stack([0.3 * points[:, 1] + 0.7 * points[:, 4], points[:, 0]], axis=1)
        slope, offset = forms.fit(name, points, joints, everywhere(joints), 1e-6)
        assert (
            np.abs(forms.apply(points_of(20, seed=1), slope, offset) - self.expected(points_of(20, seed=1))).max()
            < 1e-3
        )

    def expected(self, points):
        return np.stack([0.3 * points[:, 1] + 0.7 * points[:, 4], points[:, 0]], axis=1)

    def test_shared_takes_x_from_x_alone(self):
        points = points_of(40)
        joints = points[:, :1, ::-1]  # x and y exchanged: only the full form can
        errors = {}
        for name in ("full", "shared"):
            slope, offset = forms.fit(name, points, joints, everywhere(joints), 1e-6)
            errors[name] = np.abs(forms.apply(points, slope, offset) - joints).max()
        assert errors["full"] < 1e-4 < 0.1 < errors["shared"]

    def test_convex_weights_are_of_at_least_0_and_sum_to_1(self):
        points, joints = points_of(40), points_of(40, 2, seed=3)
        slope, _ = forms.fit("convex", points, joints, everywhere(joints), 10.0)
        weights = slope[:, 0, :, 0]
        assert weights.min() >= 0 and weights.sum(axis=0) == pytest.approx([1, 1], abs=0.02)
        assert not slope[:, 0, :, 1].any() and np.array_equal(slope[:, 1, :, 1], weights)

    def test_a_strong_penalty_gives_the_mean(self):
        points, joints = points_of(40), points_of(40, 2, seed=3)
        for name in ("full", "shared"):
            slope, offset = forms.fit(name, points, joints, everywhere(joints), 1e12)
            assert forms.apply(points, slope, offset)[0] == pytest.approx(joints.mean(axis=0), abs=1e-6)

    def test_each_joint_on_the_samples_that_show_it(self):
        points, joints = points_of(40), points_of(40, 3, seed=3)
        shown = np.random.default_rng(0).random((40, 3)) < 0.5
        shown[:, 2] = False
        slope, offset = forms.fit("full", points, np.where(shown[..., None], joints, np.nan), shown, 1e-3)
        rows = shown[:, 0]
        first = joints[rows, :1]
        alone, start = forms.fit("full", points[rows], first, everywhere(first), 1e-3)
        assert np.allclose(slope[:, :, :1], alone) and np.allclose(offset[:1], start) and np.isnan(slope[:, :, 2]).all()


class TestLinear:
    def test_the_right_form_wins(self):
        """From 12 labels of joints between keypoints: full overfits, convex knows what they are."""
        points = points_of(12, 16)
        joints = 0.5 * points[:, :2] + 0.5 * points[:, 2:4] + np.random.default_rng(5).normal(0, 0.02, (12, 2, 2))
        fitted = linear.fit(points, joints, everywhere(joints))
        assert fitted.shares["convex"].min() > 0.5 and fitted.shares["mean"].max() < 0.01
        assert (fitted.errors["convex"] < 0.5 * fitted.errors["full"]).all()

    def test_keypoints_that_tell_nothing_give_the_mean_pose(self):
        points, joints = points_of(20, 16), points_of(20, 2, seed=8)
        fitted = linear.fit(points, joints, everywhere(joints))
        new = fitted.map(points_of(300, 16, seed=9))
        error = np.linalg.norm(new - points_of(300, 2, seed=10), axis=2).mean()
        mean = np.linalg.norm(joints.mean(axis=0) - points_of(300, 2, seed=10), axis=2).mean()
        assert error < 1.15 * mean

    def test_what_is_left_out_was_not_fitted_on(self):
        points, joints = points_of(20, 2), points_of(20, 1, seed=3)
        joints[7] += 100
        fitted = linear.fit(points, joints, everywhere(joints))
        assert np.abs(fitted.left_out[:, 7] - joints[7]).min() > 50

    def test_weights_by_errors(self):
        found = linear.weights(np.array([[1.0, 1.0, np.nan, np.nan], [1.0, 1.1, 1.0, np.nan]]))
        assert found[:, 0] == pytest.approx([0.5, 0.5]) and found[1, 1] == pytest.approx(1 / (1 + np.e), abs=1e-6)
        assert found[:, 2] == pytest.approx([0, 1]) and found[:, 3] == pytest.approx([0.5, 0.5])


class TestNetwork:
    @pytest.mark.slow
    def test_it_learns_where_a_spot_is(self):
        """A bright spot on noise: after some steps, far nearer to it than the mean."""
        torch.manual_seed(0)
        at = torch.rand(24, 1, 2) * 1.2 - 0.6
        axis = torch.linspace(-1, 1, 32)
        height = torch.exp(
            -((axis - at[:, :, :1]).square()[:, :, None, :] + (axis - at[:, :, 1:]).square()[..., None]) / 0.02
        )
        images = (height.expand(-1, 3, -1, -1) * 1.6 - 0.8 + 0.1 * torch.rand(24, 3, 32, 32)).clamp(-1, 1)
        shown = torch.ones(24, 1, dtype=torch.bool)
        model = tiny()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        network = trained(model, images[:16], at[:16], shown[:16], Schedule(steps=120, hide=0.0))
        error = (predicted(network, images[16:]) - at[16:]).norm(dim=2).mean()
        assert error < 0.4 * (at[16:] - at[:16].mean(0)).norm(dim=2).mean() and not network.training
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_joints_that_are_not_shown_do_not_count(self):
        images, at, shown = pictures(4), torch.zeros(4, 2, 2), torch.ones(4, 2, dtype=torch.bool)
        shown[:, 1] = False
        one = trained(tiny(), images, at, shown, QUICK)
        at[:, 1] = 0.7
        other = trained(tiny(), images, at, shown, QUICK)
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )

    def test_the_callers_random_numbers_go_on_as_they_would_have(self):
        self.model = tiny()
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        trained(self.model, pictures(2), torch.zeros(2, 1, 2), torch.ones(2, 1, dtype=torch.bool), QUICK)
        assert torch.equal(torch.rand(2), expected)

    def test_the_mean_of_those_that_know_a_joint(self):
        members = [JointNetwork.beside(tiny(), 3).eval() for _ in range(2)]
        one, other = (member(pictures(4)) for member in members)
        known = torch.tensor([[True, True, False], [True, False, False]])
        found = JointNetworks(members, known)(pictures(4))
        assert torch.allclose(found[:, 0], (one[:, 0] + other[:, 0]) / 2) and torch.allclose(found[:, 1], one[:, 1])
        assert torch.allclose(found[:, 2], (one[:, 2] + other[:, 2]) / 2)  # nobody knows: anything finite


class TestNameJoints:
    @pytest.mark.slow
    def test_all_labels_are_used_and_errors_are_of_images_left_out(self):
        steps = []
        named = name_joints(tiny().eval(), labelled(), QUICK, lambda: steps.append(1))
        assert len(steps) == steps_of(12, QUICK) == 4 * (5 + 3)
        assert named.names == NAMES and named.skeleton == [(0, 1)] and named.network is not None
        report = named.report
        assert report["images"] == 12 and set(report["joints"]) == set(NAMES)
        for each in report["joints"].values():
            assert each["labels"] == 12 and 0 < each["interval"] < each["error"] < 1
        assert 0.7 < report["error"] / report["mean_pose"] < 1.4  # labels by chance: nothing to learn

    def test_without_a_network(self):
        model = ExtendedAutoLink(**SMALL_AUTOLINK, reconstruction_loss="mse").eval()
        named = name_joints(model, labelled(), None)
        keypoints = model.estimate(pictures(12)).double().numpy()
        assert named.network is None and not named.shares.any()
        assert np.array_equal(named(pictures(12), keypoints), named.map(keypoints))
        assert not named.disagreement(pictures(12), keypoints).any()

    def test_shares_blend_map_and_network(self):
        named = name_joints(tiny().eval(), labelled(), QUICK)
        keypoints = points_of(12, 5)
        by_map, by_network = named.map(keypoints), predicted(named.network, pictures(12)).double().numpy()
        expected = by_map * (1 - named.shares[:, None]) + by_network * named.shares[:, None]
        assert np.allclose(named(pictures(12), keypoints), expected)
        apart = np.linalg.norm(by_map - by_network, axis=2).mean(axis=1)
        assert np.allclose(named.disagreement(pictures(12), keypoints), apart)

    def test_no_network_has_seen_the_image_that_its_error_is_of(self, monkeypatch):
        seen = []

        def learned(model, images, *others):
            seen.append({float(image[0, 0, 0]) for image in images})
            return JointNetwork.beside(model, 3).eval()

        monkeypatch.setattr(fitting, "trained", learned)
        named = name_joints(tiny().eval(), labelled(), QUICK)
        folds, kept = seen[:5], seen[5:]
        assert [len(each) for each in folds] == [9, 9, 10, 10, 10]
        assert all(sum(float(image[0, 0, 0]) in each for each in folds) == 4 for image in pictures(12))
        assert len(named.network.members) == 3 and [len(each) for each in kept] == [12, 12, 12]

    def test_a_joint_that_no_label_shows_is_finite_and_said(self):
        few = labelled()
        few.shown[:, 1] = False
        few.joints[:, 1] = np.nan
        named = name_joints(tiny().eval(), few, QUICK)
        assert named.report["joints"]["tail"]["error"] is None and named.report["joints"]["tail"]["labels"] == 0
        assert np.isfinite(named(pictures(2), points_of(2, 5))).all()
        assert named.shares[1] == 0  # nor does a network that never saw it count
        likelihood, error = named.judged(np.ones((2, 5)), np.zeros((2, 5)))
        assert (likelihood[:, 1] == 0).all() and (error[:, 1] == 1).all() and (error[:, 0] < 1).all()

    @pytest.mark.slow
    def test_networks_that_learn_side_by_side_are_those_of_one_process(self):
        steps, few = [], labelled(4)
        one, two = (name_joints(tiny().eval(), few, QUICK, lambda: steps.append(0), count) for count in (1, 2))
        assert len(steps) == 2 * steps_of(4, QUICK)
        assert one.report == two.report
        for a, b in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
            assert torch.equal(a, b)

    def test_too_few_labels(self):
        with pytest.raises(ValueError, match="must show a joint in at least 2 images, got 1 images that show 3 joints"):
            name_joints(tiny().eval(), labelled(1), None)


class TestOnDisk:
    def named(self, schedule=QUICK):
        return name_joints(tiny().eval(), labelled(), schedule)

    @pytest.mark.parametrize("schedule", [QUICK, None])
    def test_it_comes_back_as_it_was(self, tmp_path, schedule):
        named = self.named(schedule)
        named.save(tmp_path)
        back = load_joints(tmp_path, tiny())
        images, keypoints = pictures(3), points_of(3, 5)
        assert np.array_equal(back(images, keypoints), named(images, keypoints))
        assert (
            back.names == named.names and back.report == named.report and np.array_equal(back.labelled, named.labelled)
        )

    def test_nothing_there_is_none(self, tmp_path):
        assert load_joints(tmp_path, tiny()) is None

    def test_another_models_joints_are_refused(self, tmp_path):
        self.named().save(tmp_path)
        with pytest.raises(
            ValueError, match=r"slope must have shape \(4, 2, 3, 2\) for this model .* got \(5, 2, 3, 2\)"
        ):
            load_joints(tmp_path, tiny(num_keypoints=4))
        with pytest.raises(ValueError, match="its networks are not this model's: size mismatch"):
            load_joints(tmp_path, tiny(regressor_base=8))

    def test_joints_named_for_other_weights_are_refused(self, tmp_path):
        model = tiny()
        model.save_pretrained(tmp_path)
        self.named().save(tmp_path)
        assert load_joints(tmp_path, model).names == NAMES
        tiny(seed=1).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="named for other weights than those beside it; name them anew"):
            load_joints(tmp_path, tiny())
        NamedJoints.first(["nose"], [], 5).save(tmp_path)  # those of a training, whatever it has learned since
        tiny().save_pretrained(tmp_path)
        assert load_joints(tmp_path, model).are_keypoints

    def test_a_network_of_other_joints_is_refused(self, tmp_path):
        self.named().save(tmp_path)
        tensors = load_file(tmp_path / "joints.safetensors")
        del tensors["network.weights"]
        save_file(tensors, tmp_path / "joints.safetensors")
        with pytest.raises(ValueError, match="no networks of these 3 joints in it: name them anew"):
            load_joints(tmp_path, tiny())

    @pytest.mark.parametrize("broken", ["joints.json", "joints.safetensors"])
    def test_broken_files_are_named(self, tmp_path, broken):
        self.named().save(tmp_path)
        (tmp_path / broken).write_bytes(b"{}")
        with pytest.raises(ValueError, match=f"{broken}: no named joints"):
            load_joints(tmp_path, tiny())


class TestSuggested:
    def test_the_farthest_pose_comes_first_and_no_labelled_one(self):
        poses = np.zeros((5, 1, 2))
        poses[:, 0, 0] = [0.0, 0.1, 1.0, 0.9, -0.5]
        found = suggested(poses, np.zeros(5), poses[:1], 9)
        assert found[:2].tolist() == [2, 4] and 0 not in found and len(found) == 4

    def test_disagreement_makes_an_image_count_more(self):
        poses = np.zeros((3, 1, 2))
        poses[:, 0, 0] = [0.0, 1.0, -0.8]
        assert suggested(poses, np.array([0, 0, 0.3]), poses[:1], 1).tolist() == [2]
