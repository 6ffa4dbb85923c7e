"""Occlusion and all protocols together, on a model whose keypoints and errors are known by hand."""

import json
import math

import numpy as np
import pytest
import torch

from ppl_fast import evaluation
from ppl_fast.data import Labels, to_pixels
from ppl_fast.models import KeypointModel


class TestMasks:
    def visible(self, kind, share, size=64, seed=0, **options):
        return evaluation.visible_pixels(kind, share, size, np.random.default_rng(seed), **options)

    def test_centre_and_random_squares(self):
        hidden = ~self.visible("centre", 0.14)
        assert hidden[20:44, 20:44].all() and hidden.sum() == 24 * 24
        places = [~self.visible("random", 0.14, seed=seed) for seed in range(5)]
        assert all(place.sum() == 24 * 24 for place in places) and len({place.tobytes() for place in places}) > 1

    def test_blocks_hide_their_share(self):
        visible = self.visible("blocks", 0.5)
        assert visible.mean() == 0.5
        by_block = visible.reshape(8, 8, 8, 8).mean(axis=(1, 3))
        assert set(np.unique(by_block)) == {0.0, 1.0}
        assert self.visible("blocks", 0.8, 30, block=16).shape == (30, 30)

    def test_masks_do_not_depend_on_the_batches(self):
        images = torch.ones(5, 3, 32, 32)
        hidden, visible = evaluation.occlude(images, "random", 0.2)
        _, tail = evaluation.occlude(images[3:], "random", 0.2, first=3)
        assert torch.equal(visible[3:], tail)
        assert torch.equal(hidden, visible.expand(5, 3, 32, 32).float())

    @pytest.mark.parametrize(("kind", "share"), [("stripes", 0.2), ("centre", 0.0), ("blocks", 1.0)])
    def test_bad_masks_are_named(self, kind, share):
        with pytest.raises(ValueError, match="occlusion: (kind|share) must"):
            self.visible(kind, share)


class DotFinder(torch.nn.Module):
    """Keypoints = two numbers written into each image; every round halves the error that hidden pixels cause."""

    links = torch.tensor([[0, 1]])
    iterative = True

    def link_weights(self):
        return torch.ones(1)

    def estimate(self, images, iterations=1):
        return images[:, :2, 0, :2].transpose(1, 2)

    def estimate_rounds(self, images, iterations, visible=None):
        if visible is None:  # each round moves the keypoints by .02 in x and in y
            return [(self.estimate(images) + 0.02 * r, images) for r in range(iterations)]
        shares = 1 - visible.float().mean(dim=(1, 2, 3))
        assert not images.masked_select(~visible).any()
        return [(self.estimate(images) + (shares / 2**r)[:, None, None], images) for r in range(iterations)]


class DotFolder(torch.utils.data.Dataset):
    """Images that name their own keypoints, with the labels a folder would have."""

    image_size = 16

    def __init__(self, n=20, seed=0):
        self.keypoints = torch.from_numpy(np.random.default_rng(seed).uniform(-0.8, 0.8, (n, 2, 2))).float()
        self.paths = [f"{i:03d}.png" for i in range(n)]
        self.original_sizes = [(32, 48)] * n

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = torch.full((3, 16, 16), 0.5)
        image[:2, 0, :2] = self.keypoints[index].T
        return image

    def labels(self, rows=None):
        rows = list(range(len(self))) if rows is None else rows
        pixels = to_pixels(self.keypoints[rows].double().numpy(), 16, (32, 48))
        files = [self.paths[row] for row in rows]
        return Labels(files, pixels, np.ones((len(rows), 2), bool), ["left", "right"], [(0, 1)])


class TestOcclusion:
    def run(self, masks=(("centre", 0.25), ("blocks", 0.5)), rounds=2, **options):
        folder = DotFolder()
        joints = (folder.keypoints.double().numpy() + 1) / 2
        fitted = evaluation.RegressionMap(np.eye(4))
        return evaluation.occlusion(
            DotFinder(), folder, joints, fitted, masks=masks, rounds=rounds, progress=False, **options
        )

    def test_errors_by_round(self):
        result = self.run(masks=[("centre", 0.25)])
        # A hidden share of 1/4 moves every keypoint by 1/4 in x and y of [-1, 1], then half of that each round.
        expected = [0.25 / 2 * math.sqrt(2) / 2**r for r in range(3)]
        assert result["rows"][0]["rounds"] == pytest.approx(expected, abs=1e-7)
        assert result["clean"] == pytest.approx(0, abs=1e-7)
        assert result["rows"][0]["recovered"] == pytest.approx(0.75, abs=1e-5)
        assert "on 20 test images, as a fraction of the image size" in result["protocol"]
        assert "0 being the plain estimate" in result["protocol"]

    def test_zero_rounds_are_the_plain_estimate(self):
        (row,) = self.run(masks=[("centre", 0.25)], rounds=0)["rows"]
        assert row["rounds"] == pytest.approx([0.25 / 2 * math.sqrt(2)], abs=1e-7) and row["recovered"] is None

    def test_rounds_on_a_whole_image_are_measured_too(self):
        result = self.run(masks=[("centre", 0.25)], rounds=2)
        assert result["clean_rounds"] == pytest.approx([0.01 * math.sqrt(2) * r for r in range(3)], abs=1e-7)
        assert result["clean"] == result["clean_rounds"][0]

    def test_ridge_and_pck_stand_beside_the_regression(self):
        identity = evaluation.RegressionMap(np.vstack([np.eye(4), np.zeros(4)]), intercept=True, penalty=1e-6)
        result = self.run(masks=[("centre", 0.25)], rounds=2, penalised=identity, threshold=0.1)
        (row,) = result["rows"]
        assert row["ridge"] == pytest.approx(row["rounds"]) and result["clean_ridge"] == result["clean_rounds"]
        assert row["pck"] == [0, 1, 1] and result["clean_pck"] == [1, 1, 1]  # .177, .088 and .044 image sizes away

    def test_batches_change_nothing(self):
        masks = [("centre", 0.25), ("centre", 0.1)]
        assert self.run(masks, batch_size=64) == self.run(masks, batch_size=7)

    def test_counts_must_agree(self):
        with pytest.raises(ValueError, match="images and joints must have equal length, got 3 and 4"):
            evaluation.occlusion(
                DotFinder(), torch.zeros(3, 3, 8, 8), np.zeros((4, 2, 2)), evaluation.RegressionMap(np.eye(4))
            )


class TestEvaluateModel:
    def test_a_perfect_model_on_one_labelled_set(self):
        folder = DotFolder(50)
        metrics = evaluation.evaluate_model(
            DotFinder(), folder, folder.labels(), masks=[("centre", 0.25)], rounds=1, progress=False
        )
        json.dumps(metrics)
        assert metrics["images"] == {"train": 40, "test": 10} and "last 10 of 50" in metrics["split"]
        assert metrics["regression"]["value"] < 1e-6 < 0.1 < metrics["regression"]["baseline"]
        assert metrics["regression"]["per_joint"].keys() == {"left", "right"}
        assert metrics["matching"]["value"] < 1e-6 < 0.01 < metrics["matching"]["baseline"]
        assert metrics["pck"]["value"] == 1 > 0.5 > metrics["pck"]["baseline"]
        assert metrics["limb_share"]["value"] == 1 > metrics["limb_share"]["baseline"]
        assert len(metrics["occlusion"]["rows"][0]["rounds"]) == 2
        for name in ("regression", "ridge", "matching", "pck", "limb_share", "occlusion"):
            assert metrics[name]["protocol"]
        assert metrics["ridge"]["value"] < 1e-4 and "notes" not in metrics  # 40 images, 4 coefficients
        assert metrics["leading"] == "regression" and "by the regression" in metrics["pck"]["protocol"]

    def test_few_labels_are_said(self):
        folder = DotFolder(20)
        metrics = evaluation.evaluate_model(DotFinder(), folder, folder.labels(), masks=(), progress=False)
        (note,) = metrics["notes"]
        assert note.startswith("16 training images are few for 4 coefficients a coordinate: ")
        assert "ridge comes first" in note
        assert metrics["leading"] == "ridge" and "by the ridge regression" in metrics["pck"]["protocol"]

    def test_the_protocol_rules_fit_regression_mean_pose_pck_and_occlusion(self):
        folder = DotFolder(400)
        folder.keypoints[:, 0, 0] = folder.keypoints[:, 0, 0].abs().neg() - 0.1  # left and right are far apart
        folder.keypoints[:, 1, 0] = folder.keypoints[:, 1, 0].abs() + 0.1
        labels = folder.labels()
        mirrored = np.random.default_rng(2).random(400) < 0.3
        labels.keypoints[mirrored] = labels.keypoints[mirrored][:, ::-1]
        options = {"masks": [("centre", 0.25)], "rounds": 1, "progress": False}
        plain = evaluation.evaluate_model(DotFinder(), folder, labels, **options)
        assert plain["regression"]["value"] > 0.05 and plain["occlusion"]["clean"] > 0.05
        protocol = {"swap": [(0, 1)], "norm": "l1", "summed_at": 101, "intercept": True}
        swapped = evaluation.evaluate_model(DotFinder(), folder, labels, protocol=protocol, **options)
        assert swapped["regression"]["value"] < 1e-3 and swapped["pck"]["value"] == 1
        assert swapped["occlusion"]["clean"] < 1e-3
        # A quarter hidden moves both keypoints by .25 in x and in y of [-1, 1]: |dx| + |dy| is .25, twice, times 100.
        assert swapped["occlusion"]["rows"][0]["rounds"] == pytest.approx([50, 25], rel=1e-3)
        assert swapped["occlusion"]["unit"] == "pixels at 101, summed over the joints"
        for name in ("regression", "pck", "occlusion"):
            assert "left and right swapped" in swapped[name]["protocol"]
        for name in ("regression", "occlusion"):
            assert "|dx| + |dy|" in swapped[name]["protocol"] and "pixels at 101" in swapped[name]["protocol"]

    def test_regression_and_mean_pose_are_fitted_once(self, monkeypatch):
        folder, solved = DotFolder(50), []

        def counted(features, *arguments, **options):
            solved.append(features.shape)
            return solve(features, *arguments, **options)

        solve = np.linalg.lstsq
        monkeypatch.setattr(np.linalg, "lstsq", counted)
        evaluation.evaluate_model(DotFinder(), folder, folder.labels(), rounds=1, progress=False)
        assert sorted(solved) == [(40, 1), (40, 4)]  # the mean pose and the map, for all protocols

    def test_a_map_of_other_data_is_refused(self):
        points, joints = np.zeros((3, 2, 2)), np.full((3, 4, 2), 0.5)
        for options, got in (
            ({"fitted": evaluation.RegressionMap(np.eye(4)), "intercept": True}, r"fitted .* \(5, 8\) .* \(4, 4\)"),
            ({"mean": np.zeros((3, 2))}, r"mean must be of shape \(4, 2\) for these options, got \(3, 2\)"),
        ):
            with pytest.raises(ValueError, match=f"regression: {got}"):
                evaluation.regression(points, joints, points, joints, **options)

    def test_a_model_that_cannot_iterate(self):
        class Plain(KeypointModel):
            estimate = DotFinder.estimate

        folder = DotFolder(50)
        options = {"masks": [("centre", 0.25)], "rounds": 3, "iterations": 5, "progress": False}
        metrics = evaluation.evaluate_model(Plain(), folder, folder.labels(), **options)
        (row,) = metrics["occlusion"]["rows"]
        assert len(row["rounds"]) == 1 and row["recovered"] is None and metrics["iterations"] == 1
        assert "no iterative inference" in metrics["occlusion"]["protocol"]

    def test_side_by_side_keeps_the_first_models_keys(self):
        both = evaluation.side_by_side({"PPL": {"pck": 1}, "AutoLink": {"pck": 2}})
        assert both == {"pck": 1, "model": "PPL", "beside": {"AutoLink": {"pck": 2}}}

    def test_masks_are_refused_before_any_work(self):
        folder = DotFolder(4)
        for options, message in (
            ({"masks": [("centre", 1.5)]}, "share must lie between 0 and 1, got 1.5"),
            ({"rounds": -1}, "rounds must not be negative, got -1"),
        ):
            with pytest.raises(ValueError, match=message):
                evaluation.evaluate_model(None, folder, folder.labels(), **options)

    def test_numbers_of_numpy_give_the_same_text(self):
        folder = DotFolder(40)
        numbers = {"iterations": 1, "rounds": 2, "occlusion_images": 4, "batch_size": 4, "workers": 0}
        plain = {**numbers, "threshold": 0.5, "masks": [("blocks", 0.5)]}
        numpys = {name: np.int64(value) for name, value in numbers.items()}
        numpys |= {"threshold": np.float32(0.5), "masks": [("blocks", np.float32(0.5))]}
        texts = [
            json.dumps(evaluation.evaluate_model(DotFinder(), folder, folder.labels(), progress=False, **options))
            for options in (plain, numpys)
        ]
        assert texts[0] == texts[1]

    def test_separate_sets_and_missing_labels(self):
        train, test = DotFolder(40), DotFolder(30, seed=1)
        some = list(range(5, 17))[::-1]
        metrics = evaluation.evaluate_model(
            DotFinder(), train, train.labels(), test, test.labels(some), masks=(), progress=False
        )
        assert metrics["images"] == {"train": 40, "test": 12} and "occlusion" not in metrics
        assert metrics["regression"]["value"] < 1e-6

    def test_labels_of_other_images_are_refused(self):
        folder = DotFolder(4)
        other = DotFolder(4)
        other.paths = [f"frame_{i}.png" for i in range(4)]
        with pytest.raises(ValueError, match=r"none in common \(an image: 000.png, a label: frame_0.png\)"):
            evaluation.evaluate_model(DotFinder(), folder, other.labels(), progress=False)
        with pytest.raises(ValueError, match="must be given together"):
            evaluation.evaluate_model(DotFinder(), folder, folder.labels(), folder, progress=False)
