"""Every protocol against cases whose answer is known by hand."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from ppl_fast import evaluation
from ppl_fast.data import to_pixels


def random_points(seed, n, count):
    return np.random.default_rng(seed).uniform(0.1, 0.9, (n, count, 2))


def as_keypoints(unit):
    return torch.from_numpy(unit * 2 - 1)


class TestRegression:
    def linear_case(self, n=60, seed=0):
        points = random_points(seed, n, 4)
        joints = (points.reshape(n, 8) @ np.random.default_rng(9).normal(size=(8, 6))).reshape(n, 3, 2)
        return as_keypoints(points), joints

    def test_identity_is_error_free(self):
        joints = random_points(0, 40, 5)
        score = evaluation.regression(as_keypoints(joints), joints, as_keypoints(joints[:7]), joints[:7])
        assert score.value < 1e-12
        assert "without intercept" in score.protocol and "40 training images" in score.protocol

    def test_a_linear_map_generalises_without_error(self):
        score = evaluation.regression(*self.linear_case(), *self.linear_case(n=20, seed=1))
        assert score.value < 1e-12 and score.per_joint.max() < 1e-12
        assert score.baseline > 0.1

    def test_a_shift_needs_the_intercept(self):
        points = np.zeros((30, 1, 2))
        points[:, 0] = random_points(2, 30, 1)[:, 0]
        joints = points + 0.25
        plain = evaluation.regression(as_keypoints(points), joints, as_keypoints(points), joints)
        shifted = evaluation.regression(as_keypoints(points), joints, as_keypoints(points), joints, intercept=True)
        assert plain.value > 0.01 and shifted.value < 1e-12

    def test_error_is_the_mean_distance_in_image_sizes(self):
        # One keypoint fixed at (1, 0): the fit is the mean joint (.5, .5); the test joint lies (.3, .4) away.
        keypoints = torch.tensor([[[1.0, -1.0]]] * 2)
        train = np.array([[[0.4, 0.5]], [[0.6, 0.5]]])
        score = evaluation.regression(keypoints, train, keypoints[:1], np.array([[[0.8, 0.9]]]))
        assert score.value == pytest.approx(0.5, abs=1e-12)
        assert score.baseline == pytest.approx(0.5, abs=1e-12)

    def test_summed_at_and_l1_are_the_taichi_variants(self):
        keypoints, train = torch.tensor([[[1.0, -1.0]]]), np.array([[[0.5, 0.5], [0.2, 0.2]]])
        test = np.array([[[0.8, 0.9], [0.2, 0.3]]])
        l2 = evaluation.regression(keypoints, train, keypoints, test, summed_at=256)
        l1 = evaluation.regression(keypoints, train, keypoints, test, summed_at=256, norm="l1")
        assert l2.value == pytest.approx(255 * (0.5 + 0.1)) and l1.value == pytest.approx(255 * (0.7 + 0.1))
        assert "pixels at 256" in l2.protocol and "|dx| + |dy|" in l1.protocol

    def test_invisible_joints_are_neither_fitted_nor_counted(self):
        keypoints, joints = self.linear_case()
        visible = np.random.default_rng(3).random(joints.shape[:2]) < 0.7
        spoiled = np.where(visible[..., None], joints, np.nan)
        options = {"train_visible": visible, "test_visible": visible}
        score = evaluation.regression(keypoints, spoiled, keypoints, spoiled, **options)
        assert score.value < 1e-12 and "images that show it" in score.protocol

    def test_visibility_weighs_every_visible_joint_alike(self):
        # Joint 0 is off by .1 on both images, joint 1 by .4 on the one that shows it: (.1 + .1 + .4) / 3.
        keypoints, train = torch.tensor([[[1.0, -1.0]]] * 2), np.full((2, 2, 2), 0.5)
        test = np.array([[[0.6, 0.5], [0.5, 0.9]], [[0.4, 0.5], [9.0, 9.0]]])
        visible = np.array([[True, True], [True, False]])
        score = evaluation.regression(keypoints, train, keypoints, test, test_visible=visible)
        assert score.value == pytest.approx(0.2) and score.per_joint == pytest.approx([0.1, 0.4])

    def test_a_joint_never_seen_in_training_is_left_out(self):
        keypoints, joints = self.linear_case()
        visible = np.ones(joints.shape[:2], bool)
        visible[:, 1] = False
        score = evaluation.regression(keypoints, joints, keypoints, joints, train_visible=visible)
        assert math.isnan(score.per_joint[1]) and score.value < 1e-12

    def test_swap_recovers_flipped_samples(self):
        keypoints, joints = self.linear_case(n=300)
        flipped = joints.copy()
        flipped[:90, [0, 2]] = flipped[:90, [2, 0]]
        plain = evaluation.regression(keypoints, flipped, keypoints, flipped)
        swapped = evaluation.regression(keypoints, flipped, keypoints, flipped, swap=[(0, 2)])
        assert plain.value > 0.05 and swapped.value < 1e-12

    def test_swap_drops_training_outliers(self):
        keypoints, joints = self.linear_case(n=300)
        spoiled = joints.copy()
        spoiled[:3] += 50
        swapped = evaluation.regression(keypoints, spoiled, keypoints[3:], joints[3:], swap=[(0, 2)])
        assert swapped.value < 1e-10

    def test_rank_deficiency_gets_the_minimum_norm_fit(self):
        keypoints, joints = self.linear_case()
        doubled = torch.cat([keypoints, keypoints], dim=1)
        assert evaluation.regression(doubled, joints, doubled, joints).value < 1e-12
        few = evaluation.regression(keypoints[:3], joints[:3], keypoints[:3], joints[:3])
        assert few.value < 1e-12 and "underdetermined" in few.protocol

    def test_mean_pose_is_the_training_mean(self):
        train, test = random_points(4, 50, 3), random_points(5, 20, 3)
        score = evaluation.mean_pose(train, test)
        assert score.value == pytest.approx(np.linalg.norm(test - train.mean(0), axis=-1).mean())
        assert score.protocol.startswith("mean pose of 50 training images")
        np.testing.assert_allclose(evaluation.fit_mean_pose(train), train.mean(0))

    def test_sides_of_labels_and_mean_pose_are_swapped_alike(self):
        # Two poses, each other's mirror image in 30 and 20 images: unswapped, the mean lies between them.
        poses = np.array([[[0.2, 0.5], [0.6, 0.5]]] * 30 + [[[0.6, 0.5], [0.2, 0.5]]] * 20)
        between = evaluation.fit_mean_pose(poses)
        np.testing.assert_allclose(between[:, 0], [0.36, 0.44])
        np.testing.assert_allclose(evaluation.fit_mean_pose(poses, swap=[(0, 1)])[:, 0], [0.2, 0.6])
        error, per_joint = evaluation.regression_error(poses[:1], poses[30:31], swap=[(0, 1)])
        assert error == 0 and per_joint.tolist() == [0, 0]
        assert evaluation.regression_error(poses[:1], poses[30:31])[0] == pytest.approx(0.4)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"train_keypoints": torch.zeros(4, 2)}, r"train_keypoints must have shape \(n, K, 2\), got \(4, 2\)"),
            ({"train_keypoints": torch.zeros(5, 4, 2)}, "train_keypoints 5, train_joints 4"),
            ({"test_keypoints": torch.zeros(4, 3, 2)}, "N = 4 as in training, got N = 3"),
            ({"test_keypoints": torch.full((4, 4, 2), torch.nan)}, "non-finite keypoints in 4 of 4 images"),
            ({"test_joints": np.zeros((4, 5, 2))}, "J = 3 as in training, got J = 5"),
            ({"test_joints": np.full((4, 3, 2), np.nan)}, "test_joints must be finite where visible"),
            ({"train_visible": np.zeros((4, 3), bool)}, "train_joints must have at least one visible joint"),
            ({"test_visible": np.zeros((4, 2), bool)}, r"visible must have shape \(4, 3\)"),
            ({"swap": [(0, 3)]}, "swap must hold joint numbers from 0 to 2"),
            ({"norm": "max"}, "norm must be 'l1' or 'l2'"),
        ],
    )
    def test_bad_arguments_are_named(self, change, message):
        arguments = {"train_keypoints": torch.zeros(4, 4, 2), "train_joints": np.zeros((4, 3, 2))}
        arguments |= {"test_keypoints": torch.zeros(4, 4, 2), "test_joints": np.zeros((4, 3, 2))}
        with pytest.raises(ValueError, match=message):
            evaluation.regression(**(arguments | change))

    def test_no_joint_in_common_is_an_error(self):
        first, second = np.array([[True, False]] * 4), np.array([[False, True]] * 4)
        with pytest.raises(ValueError, match="no joint is visible in both"):
            evaluation.regression(
                torch.zeros(4, 4, 2), np.zeros((4, 2, 2)), torch.zeros(4, 4, 2), np.zeros((4, 2, 2)),
                train_visible=first, test_visible=second,
            )  # fmt: skip

    def test_the_map_refuses_another_number_of_keypoints(self):
        fitted = evaluation.fit_regression(*self.linear_case())
        with pytest.raises(ValueError, match="N = 4 as when fitted, got N = 5"):
            fitted(torch.zeros(2, 5, 2))


class TestMatching:
    def test_the_assignment_is_optimal_not_greedy(self):
        # Greedy would pair the closest (keypoint 0, joint 0) first and pay for the rest.
        keypoints, joints = np.array([[[0.5, 0.0], [0.0, 0.0]]]), np.array([[[0.4, 0.0], [0.8, 0.0]]])
        score = evaluation.matching(as_keypoints(keypoints), joints)
        assert score.details["assignment"] == [(0, 1), (1, 0)]
        assert score.value == pytest.approx((0.3**2 + 0.4**2) / 2)
        assert score.per_joint == pytest.approx([0.16, 0.09])

    def test_one_pairing_serves_all_images(self):
        joints = random_points(0, 20, 3)
        order = [2, 0, 1]
        score = evaluation.matching(as_keypoints(joints[:, order]), joints)
        assert score.value < 1e-12 and score.details["assignment"] == [(0, 2), (1, 0), (2, 1)]
        joints[:10] = joints[:10, [1, 2, 0]]
        assert evaluation.matching(as_keypoints(joints[:, order]), joints[::-1]).value > 0.01

    def test_surplus_keypoints_stay_unpaired_and_scarce_ones_serve_twice(self):
        joints = random_points(1, 10, 2)
        spare = np.concatenate([np.full((10, 1, 2), 5.0), joints], axis=1)
        assert evaluation.matching(as_keypoints(spare), joints).value < 1e-12
        both = joints[:, [0, 1, 0, 1]]
        assert evaluation.matching(as_keypoints(joints), both).value < 1e-12

    def test_hidden_joints_do_not_count(self):
        joints = random_points(2, 10, 3)
        visible = np.random.default_rng(0).random((10, 3)) < 0.6
        visible[:, 2] = False
        score = evaluation.matching(as_keypoints(joints), np.where(visible[..., None], joints, np.nan), visible)
        assert score.value < 1e-12 and math.isnan(score.per_joint[2])

    def test_missing_scipy_is_one_sentence(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "scipy.optimize", None)
        with pytest.raises(ImportError, match=r"needs scipy, which is not installed: pip install 'ppl_fast\[data\]'"):
            evaluation.matching(torch.zeros(1, 2, 2), np.zeros((1, 2, 2)))


class TestPCK:
    def test_share_within_the_threshold(self):
        joints = np.full((1, 4, 2), 0.5)
        predicted = joints + np.array([[[0.0, 0.0], [0.0, 0.04], [0.04, 0.04], [np.nan, 0.0]]])
        score = evaluation.pck(predicted, joints, 0.05)
        assert score.value == 0.5 and score.per_joint.tolist() == [1, 1, 0, 0]
        assert "PCK@0.05" in score.protocol

    def test_invisible_joints_are_left_out(self):
        joints = np.full((1, 2, 2), 0.5)
        score = evaluation.pck(joints + [[[0, 0], [1, 1]]], joints, 0.1, np.array([[True, False]]))
        assert score.value == 1

    def test_threshold_must_be_positive(self):
        with pytest.raises(ValueError, match="threshold must be positive, got 0"):
            evaluation.pck(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), 0)


class TestLimbShare:
    joints = np.array([[[0.2, 0.5], [0.8, 0.5]]])
    keypoints = np.array([[[0.2, 0.52], [0.8, 0.52], [0.2, 0.9], [0.8, 0.9]]])

    def share(self, weights, **options):
        links = [(0, 1), (2, 3)]
        return evaluation.limb_share(as_keypoints(self.keypoints), links, weights, self.joints, [(0, 1)], **options)

    def test_only_the_heaviest_links_count(self):
        assert self.share([2.0, 1.0], heaviest=1).value == 1
        assert self.share([1.0, 2.0], heaviest=1).value == 0
        both = self.share([1.0, 2.0])
        assert both.value == 0.5 and both.details["links"] == [(2, 3), (0, 1)]

    def test_a_link_across_the_bone_counts_where_it_is_near(self):
        across = as_keypoints(np.array([[[0.5, 0.0], [0.5, 1.0]]]))
        score = evaluation.limb_share(across, [(0, 1)], [1.0], self.joints, [(0, 1)], within=0.06)
        assert score.value == pytest.approx(3 / 21)  # of the points 0, .05, ..., 1 those at .45, .5 and .55

    def test_chance_is_the_area_near_a_bone(self):
        rng = np.random.default_rng(0)
        turn, middle = rng.uniform(0, math.pi, 500), rng.uniform(0.4, 0.6, (500, 2))
        half = 0.3 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        bones, keypoints = np.stack([middle - half, middle + half], axis=1), torch.zeros(500, 2, 2)
        score = evaluation.limb_share(keypoints, [(0, 1)], [1.0], bones, [(0, 1)])
        area = 0.6 * 0.1 + math.pi * 0.05**2
        assert score.baseline == pytest.approx(area, rel=0.01) and score.baseline_name == "chance"

    def test_bones_with_a_hidden_end_do_not_count(self):
        joints = np.concatenate([self.joints, self.joints + [0, 0.4]], axis=1)
        arguments = [(0, 1), (2, 3)], [1.0, 1.0], joints, [(0, 1), (2, 3)]
        visible = np.array([[True, True, True, False]])
        keypoints = as_keypoints(self.keypoints)
        assert evaluation.limb_share(keypoints, *arguments).value == 1
        assert evaluation.limb_share(keypoints, *arguments, visible).value == 0.5
        with pytest.raises(ValueError, match="at least one bone must have both ends visible"):
            evaluation.limb_share(keypoints, *arguments, np.array([[True, False, True, False]]))

    def test_skeleton_and_links_are_checked(self):
        with pytest.raises(ValueError, match="pairs of joint numbers below 2"):
            evaluation.limb_share(as_keypoints(self.keypoints), [(0, 1)], [1.0], self.joints, [(0, 2)])
        with pytest.raises(ValueError, match=r"links must have shape \(E, 2\) and weights \(E,\)"):
            self.share([1.0])


class TestScore:
    def test_as_dict_is_json(self):
        score = evaluation.Score(0.5, "how", np.array([0.5, np.nan]), 0.7, details={"links": [(0, 1)]})
        expected = {"value": 0.5, "protocol": "how", "baseline": 0.7, "baseline_name": "mean pose"}
        expected |= {"per_joint": {"head": 0.5, "foot": None}, "links": [[0, 1]]}
        assert json.loads(json.dumps(score.as_dict(["head", "foot"]))) == expected
        assert float(score) == 0.5


def test_labels_in_pixels_and_keypoints_share_one_frame():
    keypoints = np.random.default_rng(0).uniform(-1, 1, (3, 5, 2))
    sizes = np.array([[640, 480], [64, 64], [31, 200]])
    pixels = to_pixels(keypoints, 64, sizes)
    np.testing.assert_allclose(evaluation.unit_joints(pixels, 64, sizes), (keypoints + 1) / 2, atol=1e-12)
