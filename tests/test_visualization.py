"""Pictures: of the right size, showing what they should where they should, and never half-written."""

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from picture_cases import CORNERS, LINKS, WEIGHTS, pixels
from PIL import Image

from ppl_fast import visualization
from ppl_fast.visualization import palette
from ppl_fast.visualization._draw import in_picture, opacities


def has_colour(picture, x, y, colour, reach=1):
    patch = picture[y - reach : y + reach + 1, x - reach : x + reach + 1].reshape(-1, 3)
    return (np.abs(patch - colour).max(axis=1) <= 3).any()


class TestDrawing:
    def test_palette_is_distinct_and_stable(self):
        colours = np.array(palette(16))
        distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1000 * np.eye(16)
        assert distance.min() > 25 and colours.min() >= 0 and colours.max() <= 255
        assert palette(16) == palette(16) and len(palette(1)) == 1 and palette(0) == []

    def test_opacity_follows_weight_and_is_bounded(self):
        np.testing.assert_allclose(opacities(np.array([2.0, 1.0, 0.0, -3.0]), 16), [1, 0.5**1.5, 0, 0])
        assert opacities(np.ones(120), 16).sum() == pytest.approx(24)
        assert opacities(np.zeros(3), 4).tolist() == [0, 0, 0] and len(opacities(np.zeros(0), 4)) == 0

    def test_image_corners_are_pixel_centres(self):
        corners = np.array([[-1.0, -1.0], [1.0, 1.0]])
        np.testing.assert_allclose(in_picture(corners, (64, 32), (64, 32)), [[0, 0], [63, 31]])
        np.testing.assert_allclose(in_picture(corners, (192, 96), (64, 32)), [[1, 1], [190, 94]])


class TestPoses:
    def test_keypoints_and_links_are_where_they_should_be(self, tmp_path):
        path = tmp_path / "poses.png"
        visualization.save_poses(path, -torch.ones(1, 3, 64, 64), CORNERS, LINKS, WEIGHTS)
        picture = pixels(path)
        assert picture.shape == (20 + 192 + 20, 20 + 192 + 20, 3)
        places = in_picture(CORNERS[0].numpy(), (192, 192), (64, 64)).round().astype(int) + 20
        for (x, y), colour in zip(places, palette(3), strict=True):
            assert has_colour(picture, x, y, colour)
        heavy, light, absent = (picture[tuple(places[[i, j]].mean(0).round().astype(int)[::-1])] for i, j in LINKS)
        assert heavy.max() > light.max() > 40 and absent.max() < 5

    def test_grid_holds_every_image(self, tmp_path):
        path = tmp_path / "poses.png"
        images = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 3, 32, 32)
        visualization.save_poses(path, images, CORNERS.expand(5, 3, 2), LINKS, WEIGHTS, columns=3, cell=64)
        picture = pixels(path)
        assert picture.shape == (2 * 20 + 2 * 64 + 8, 2 * 20 + 3 * 64 + 2 * 8, 3)
        shades = [picture[20 + row * 72 + 2, 20 + column * 72 + 2, 0] for row, column in np.ndindex(2, 3)]
        assert shades == [0, 64, 128, 191, 255, 255]  # the last place is empty paper

    def test_images_need_not_be_square(self, tmp_path):
        visualization.save_poses(tmp_path / "wide.png", torch.zeros(1, 3, 32, 64), CORNERS, LINKS, WEIGHTS)
        assert Image.open(tmp_path / "wide.png").size == (40 + 192, 40 + 96)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"keypoints": torch.zeros(3, 2)}, r"save_poses: keypoints must have shape \(B, N, 2\), got \(3, 2\)"),
            ({"keypoints": torch.zeros(2, 3, 2)}, "as many and at least one, got 1 and 2"),
            ({"keypoints": torch.full((1, 3, 2), torch.nan)}, "keypoints must be finite"),
            ({"links": LINKS[:2]}, r"links must have shape \(E, 2\) and weights \(E,\), got \(2, 2\) and \(3,\)"),
            ({"links": LINKS + 1}, "links must hold keypoint numbers below 3, got 1 to 3"),
            ({"images": torch.zeros(1, 1, 8, 8)}, r"images must have shape \(B, 3, H, W\)"),
        ],
    )
    def test_bad_arguments_are_named_and_leave_no_file(self, change, message, tmp_path):
        arguments = {"images": torch.zeros(1, 3, 8, 8), "keypoints": CORNERS, "links": LINKS, "weights": WEIGHTS}
        with pytest.raises(ValueError, match=message):
            visualization.save_poses(tmp_path / "poses.png", **(arguments | change))
        assert not list(tmp_path.iterdir())


def test_rounds_show_every_stage(tmp_path):
    images = torch.ones(2, 3, 32, 32)
    shades = [-1.0, -0.5, 0.0]
    rounds = [(CORNERS.expand(2, 3, 2), torch.full((2, 3, 32, 32), shade)) for shade in shades]
    path = tmp_path / "rounds.png"
    visualization.save_rounds(path, images, rounds, LINKS, WEIGHTS, row_labels=["one", "two"], cell=64)
    picture = pixels(path)
    row = picture[-20 - 3]  # just above the lower margin
    left = picture.shape[1] - 20 - (6 * 64 + 5 * 8)
    assert [row[left + column * 72 + 2, 0] for column in range(6)] == [255, 0, 0, 64, 128, 128]
    assert picture[: 20 + 24, left:].min() < 120 < 200 < picture[-20:].min()  # headings above, empty margin below
    assert picture[:, : left - 8].min() < 120  # labels beside the rows
    with pytest.raises(ValueError, match="rounds must hold at least one"):
        visualization.save_rounds(path, images, [], LINKS, WEIGHTS)


def test_overlay_keeps_the_originals_size_and_enlarges_small_ones(tmp_path):
    keypoints = np.array([[10.0, 20.0], [50.0, 20.0], [10.0, 40.0]])
    for size, factor in (((640, 480), 1), ((64, 48), 6)):
        path = tmp_path / f"{factor}.png"
        visualization.save_overlay(path, Image.new("L", size), keypoints, LINKS, WEIGHTS)
        picture = pixels(path)
        assert picture.shape == (size[1] * factor, size[0] * factor, 3)
        for (x, y), colour in zip(((keypoints + 0.5) * factor - 0.5).round().astype(int), palette(3), strict=True):
            assert has_colour(picture, x, y, colour)


class TestPriors:
    def prior(self, step):
        matrix = torch.zeros(3, 3)
        matrix[0, 1] = matrix[1, 0] = 1.0
        return step, CORNERS[0] * (1 + step / 1000), matrix

    def test_last_prior_is_large_and_earlier_ones_are_picked(self, tmp_path):
        sizes = {}
        for count in (1, 2, 5, 40):
            path = tmp_path / f"{count}.png"
            visualization.save_prior(path, [self.prior(10 * step) for step in range(count)], cell=100)
            sizes[count] = Image.open(path).size
        large = 2 * 100 + 24 + 8
        assert sizes[1] == (large + 40, large + 24 + 40)
        assert [sizes[count][0] - sizes[1][0] for count in (2, 5, 40)] == [140, 248, 356]
        assert {size[1] for size in sizes.values()} == {large + 24 + 40}

    def test_an_empty_history_and_wrong_shapes_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="priors must hold at least one"):
            visualization.save_prior(tmp_path / "prior.png", [])
        with pytest.raises(ValueError, match=r"connectivity \(N, N\), got \(3, 2\) and \(2, 3\)"):
            visualization.save_prior(tmp_path / "prior.png", [(0, CORNERS[0], torch.zeros(2, 3))])

    def test_prototypes_show_the_banks_that_vary_most(self, tmp_path):
        prototypes = CORNERS.expand(4, 5, 3, 2).clone()
        prototypes[2] += torch.linspace(-0.3, 0.3, 5)[:, None, None]
        path = tmp_path / "prototypes.png"
        visualization.save_prototypes(path, prototypes, LINKS, WEIGHTS, banks=1, vectors=5, cell=60)
        picture = pixels(path)
        cells = [picture[20:80, -20 - 60 - k * 68 : picture.shape[1] - 20 - k * 68] for k in range(5)]
        assert picture.shape[0] == 100 and all((cells[0] != cell).any() for cell in cells[1:])
        with pytest.raises(ValueError, match=r"prototypes must have shape \(m, k, N, 2\)"):
            visualization.save_prototypes(path, CORNERS, LINKS, WEIGHTS)

    def test_the_prior_has_its_keypoints_numbered(self, tmp_path):
        path = tmp_path / "prior.png"
        visualization.save_keypoint_prior(path, CORNERS[0], self.prior(0)[2], side=300)
        picture = pixels(path)
        assert picture.shape == (340, 340, 3)
        extent = 1.2 * 0.5
        places = ((CORNERS[0].numpy() / extent + 1) / 2 * 299 + 20).round().astype(int)
        for (x, y), colour in zip(places, palette(3), strict=True):
            assert has_colour(picture, x, y, colour)
        outwards = CORNERS[0].numpy() - CORNERS[0].numpy().mean(0)
        for (x, y), (dx, dy) in zip(places, outwards / np.linalg.norm(outwards, axis=1, keepdims=True), strict=True):
            u, v = round(x + 0.035 * 300 * dx), round(y + 0.035 * 300 * dy)
            assert picture[v - 6 : v + 7, u - 5 : u + 6].max(axis=-1).min() < 120  # a digit
        with pytest.raises(ValueError, match="save_keypoint_prior: keypoints must have shape"):
            visualization.save_keypoint_prior(path, CORNERS, torch.zeros(3, 3))


class TestMemoryPages:
    def pages(self, tmp_path, banks, vectors, reach=0.1, **options):
        prototypes = CORNERS.expand(banks, vectors, 3, 2).clone()
        prototypes[..., 0] += torch.linspace(-reach, reach, vectors)[:, None]
        written = visualization.save_prototype_pages(tmp_path, prototypes, LINKS, WEIGHTS, cell=40, **options)
        assert [path.name for path in written] == [f"memory_{i + 1}.png" for i in range(len(written))]
        return [pixels(path) for path in written]

    def rows(self, picture):
        return (picture.shape[0] - 2 * 20 - 24 + 8) / (40 + 24 + 8)  # margins, the page's line, a cell and its number

    def test_every_bank_is_shown_on_as_few_even_pages_as_hold_twelve_rows(self, tmp_path):
        assert [self.rows(page) for page in self.pages(tmp_path, 34, 16)] == [12, 11, 11]
        assert [self.rows(page) for page in self.pages(tmp_path, 8, 32)] == [8, 8]  # two rows a bank
        assert [self.rows(page) for page in self.pages(tmp_path, 1, 4)] == [1]

    def test_of_a_large_bank_the_most_used_vectors_are_shown(self, tmp_path, monkeypatch):
        shown = []
        original = visualization._memory.captioned

        def captioned(picture, text):
            shown.append(text)
            return original(picture, text)

        monkeypatch.setattr(visualization._memory, "captioned", captioned)
        shares = torch.arange(100.0)[None]
        (page,) = self.pages(tmp_path, 1, 100, shares=shares)
        *cells, line = shown
        assert cells == [f"{k / 4950:.1%}" for k in range(68, 100)] and self.rows(page) == 2
        assert "the 32 most used of 100 vectors" in line

    def test_small_differences_are_magnified_and_the_page_says_so(self, tmp_path):
        from ppl_fast.visualization._memory import _gain

        assert [_gain(np.full((2, 3, 4, 2), d)) for d in (0.0, 0.3, 0.05, 0.001)] == [100, 1, 2, 100]
        small, large = (self.pages(tmp_path, 1, 2, reach)[0] for reach in (0.001, 0.1))
        for page in small, large:  # the two vectors' poses are told apart alike
            left, right = (page[20:60, x : x + 40] for x in (page.shape[1] - 20 - 88, page.shape[1] - 60))
            assert (np.abs(left - right).max(axis=-1) > 60).sum() > 20

    def test_shapes_are_checked(self, tmp_path):
        with pytest.raises(ValueError, match=r"shares must have shape \(2, 3\), got \(3, 2\)"):
            self.pages(tmp_path, 2, 3, shares=torch.ones(3, 2))
        with pytest.raises(ValueError, match=r"save_prototype_pages: prototypes must have shape \(m, k, N, 2\)"):
            visualization.save_prototype_pages(tmp_path, CORNERS, LINKS, WEIGHTS)
        assert not list(tmp_path.iterdir())

    def test_usage_is_a_bar_a_bank(self, tmp_path):
        path = tmp_path / "usage.png"
        visualization.save_usage(path, torch.tensor([16.0, 8.0, 4.0]), torch.tensor([0, 3, 1]), 16)
        picture = pixels(path)
        areas = [
            (np.abs(picture - colour).max(axis=-1) <= 3).sum(axis=0)
            for colour in ((0x2F, 0x5F, 0x9E), (0xB5, 0x48, 0x2F))
        ]
        heights = [sorted({int(h) for h in area if h > 5}, reverse=True) for area in areas]
        assert heights[0][0] / heights[0][-1] == pytest.approx(4, rel=0.05)
        assert heights[1][0] / heights[1][-1] == pytest.approx(3, rel=0.1)
        with pytest.raises(ValueError, match=r"must have shape \(m,\), got \(2,\) and \(3,\)"):
            visualization.save_usage(path, torch.ones(2), torch.ones(3), 4)


class TestWriting:
    def test_a_failed_write_leaves_the_old_picture(self, tmp_path, monkeypatch):
        path = tmp_path / "poses.png"
        visualization.save_poses(path, torch.zeros(1, 3, 8, 8), CORNERS, LINKS, WEIGHTS)
        before = path.read_bytes()

        def half(self, target, **_):
            target.write_bytes(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr(Image.Image, "save", half)
        with pytest.raises(OSError, match="No space left"):
            visualization.save_poses(path, torch.ones(1, 3, 8, 8), CORNERS, LINKS, WEIGHTS)
        assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]

    def test_missing_folders_are_made(self, tmp_path):
        visualization.save_connectivity(tmp_path / "a" / "b.png", torch.ones(2, 2))
        visualization.save_overlay(tmp_path / "c" / "d.png", Image.new("RGB", (300, 300)), CORNERS[0], LINKS, WEIGHTS)
        assert (tmp_path / "a" / "b.png").exists() and (tmp_path / "c" / "d.png").exists()
