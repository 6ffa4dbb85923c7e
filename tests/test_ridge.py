"""Ridge regression from keypoints to joints, against closed forms and least squares."""

import numpy as np
import pytest
import torch

from ppl_fast import evaluation


def as_keypoints(unit):
    return torch.from_numpy(unit * 2 - 1)


class TestRidge:
    def noisy(self, n, seed=0, joints=3):
        """Keypoints that move together, as those of a body do, found with errors; and joints that go with them."""
        rng = np.random.default_rng(seed)
        motion = np.random.default_rng(9).normal(0, 0.1, (3, 32))
        points = 0.5 + (rng.normal(size=(n, 3)) @ motion).reshape(n, 16, 2)
        true = 0.2 + points[:, :joints] * 0.6
        return as_keypoints(points + rng.normal(0, 0.03, points.shape)), true

    def value(self, fitted, keypoints, joints):
        return evaluation.ridge(fitted, 40, keypoints, joints).value

    def test_it_beats_least_squares_where_labels_are_few(self):
        few, many = self.noisy(40), self.noisy(400, seed=1)
        plain = evaluation.regression(*few, *many, intercept=True).value
        assert self.value(evaluation.fit_ridge(*few), *many) < 0.8 * plain

    def test_with_many_labels_it_is_least_squares(self):
        train, test = self.noisy(2000), self.noisy(400, seed=1)
        plain = evaluation.regression(*train, *test, intercept=True).value
        assert self.value(evaluation.fit_ridge(*train), *test) == pytest.approx(plain, rel=5e-3)

    def test_one_penalty_is_the_closed_form(self):
        keypoints, joints = self.noisy(60)
        fitted = evaluation.fit_ridge(keypoints, joints)
        x = (keypoints.numpy().reshape(60, -1) + 1) / 2
        x, y = x - x.mean(0), joints.reshape(60, -1) - joints.reshape(60, -1).mean(0)
        expected = np.linalg.solve(x.T @ x + fitted.penalty * np.eye(32), x.T @ y)
        assert np.allclose(fitted.coefficients[:-1], expected, atol=1e-10)
        assert fitted.intercept and fitted(keypoints).mean(0) == pytest.approx(joints.mean(0))

    def test_keypoints_that_tell_nothing_give_the_mean_pose(self):
        rng = np.random.default_rng(0)
        joints = rng.uniform(0.4, 0.6, (30, 2, 2))
        fitted = evaluation.fit_ridge(as_keypoints(rng.uniform(0, 1, (30, 16, 2))), joints)
        mean = evaluation.mean_pose(joints, joints).value
        error = self.value(fitted, as_keypoints(rng.uniform(0, 1, (200, 16, 2))), rng.uniform(0.4, 0.6, (200, 2, 2)))
        assert error < 1.1 * mean

    def test_each_joint_on_the_images_that_show_it(self):
        keypoints, joints = self.noisy(80)
        visible = np.random.default_rng(3).random(joints.shape[:2]) < 0.7
        visible[:, 2] = False
        spoiled = np.where(visible[..., None], joints, np.nan)
        fitted = evaluation.fit_ridge(keypoints, spoiled, visible)
        first = evaluation.fit_ridge(keypoints[visible[:, 0]], joints[visible[:, 0], :1])
        assert np.isnan(fitted(keypoints)[:, 2]).all() and np.isfinite(fitted(keypoints)[:, :2]).all()
        assert np.abs(fitted(keypoints)[:, 0] - first(keypoints)[:, 0]).max() < 0.03  # but for the penalty the same

    def test_swapped_sides(self):
        keypoints, joints = self.noisy(300)
        flipped = joints.copy()
        flipped[:90, [0, 2]] = flipped[:90, [2, 0]]
        plain = self.value(evaluation.fit_ridge(keypoints, flipped), keypoints, joints)
        fitted = evaluation.fit_ridge(keypoints, flipped, swap=[(0, 2)])
        assert self.value(fitted, keypoints, joints) < 0.6 * plain

    def test_a_single_image_gives_its_pose(self):
        keypoints, joints = self.noisy(1)
        assert evaluation.fit_ridge(keypoints, joints)(keypoints) == pytest.approx(joints)

    def test_the_protocol_names_the_penalty(self):
        keypoints, joints = self.noisy(60)
        fitted = evaluation.fit_ridge(keypoints, joints)
        score = evaluation.ridge(fitted, 60, keypoints, joints, baseline=0.3)
        assert f"penalty ({fitted.penalty:.2g})" in score.protocol and "60 training images" in score.protocol
        assert score.baseline == 0.3 and score.per_joint.shape == (3,)

    def test_wrong_arguments_are_named(self):
        keypoints, joints = self.noisy(10)
        with pytest.raises(ValueError, match="must cover the same images, got keypoints 10, joints 9"):
            evaluation.fit_ridge(keypoints, joints[:9])
