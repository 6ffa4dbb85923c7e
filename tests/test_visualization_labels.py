"""What tells keypoints apart in pictures: colours, numbers and names, legends; and that no panel is empty."""

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from picture_cases import CORNERS, LINKS, WEIGHTS, pixels
from PIL import Image

from ppl_fast import visualization
from ppl_fast.visualization import palette


class TestLabels:
    def test_the_first_sixteen_colours_differ_for_the_colour_blind_too(self):
        """In OKLab, as people see them who lack one of the three cones (Machado et al., 2009, severity 1)."""
        views = [
            np.eye(3),
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        ]
        cones = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
        lab = [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]
        for count, least in ((16, 0.08), (24, 0.05)):
            colours = np.array(palette(count)) / 255
            linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
            for view in views:
                seen = np.clip(linear @ np.transpose(view), 0, 1)
                places = np.cbrt(seen @ np.transpose(cones)) @ np.transpose(lab)
                apart = np.linalg.norm(places[:, None] - places, axis=2) + np.eye(count)
                assert apart.min() > least

    def test_a_colour_is_a_keypoints_own_whatever_their_number(self):
        assert palette(30)[:7] == palette(7) and palette(30)[24:] == palette(6)

    @pytest.mark.parametrize("seed", range(5))
    def test_labels_hide_neither_one_another_nor_a_keypoint(self, seed):
        from ppl_fast.visualization._labels import places

        points = np.random.default_rng(seed).permutation(np.stack(np.mgrid[10:190:4j, 6:194:4j], -1).reshape(16, 2))
        sizes, dot = np.full((16, 2), (12.0, 8.0)), 5.0
        centres = places(points, sizes, dot, (200, 200))
        assert (centres - sizes / 2 >= 0).all() and (centres + sizes / 2 <= 200).all()
        for i, centre in enumerate(centres):
            assert 5 < np.linalg.norm(centre - points[i]) < 15
            others = np.delete(np.abs(centres - centre), i, axis=0)
            assert (others >= (12, 8)).any(axis=1).all()
            around = np.delete(np.abs(points - centre), i, axis=0)
            assert (around >= (6 + dot - 1e-9, 4 + dot - 1e-9)).any(axis=1).all()

    def test_keypoints_of_overlays_are_numbered_or_named(self, tmp_path):
        keypoints = np.array([[100.0, 100.0], [300.0, 100.0], [200.0, 300.0]])
        image, drawn = Image.new("RGB", (400, 400), (90, 90, 90)), []
        for i, names in enumerate((None, ["nose", "left ear", "tail"])):
            path = tmp_path / f"{i}.png"
            visualization.save_overlay(path, image, keypoints, LINKS, np.zeros(3), names=names)
            drawn.append(pixels(path))
            beside = visualization.draw_overlay(image, keypoints, LINKS, np.zeros(3), names=names)
            difference = np.abs(drawn[-1] - np.asarray(beside).astype(int)).max(axis=2)
            assert (difference > 60).mean() < 1e-3  # the same, but for the grid that is supersampled
        outlines = [(picture.max(axis=2) < 40).sum() for picture in drawn]
        assert outlines[1] > 2 * outlines[0] > 0

    def test_small_pictures_have_no_letters(self):
        from ppl_fast.visualization._labels import labels_of

        assert labels_of(2, None, 119) is None and labels_of(2, None, 120) == ["0", "1"]
        assert labels_of(2, ["a", "b"], 400) == ["a", "b"]
        with pytest.raises(ValueError, match="names must be as many as the keypoints, 2, got 1"):
            labels_of(2, ["a"], 400)
        small = visualization.draw_overlay(Image.new("RGB", (60, 60)), [[20.0, 20.0]], np.zeros((0, 2), int), [])
        assert np.asarray(small)[:, 30:].max() == 0

    def test_a_legend_names_each_colour_beneath_the_picture(self, tmp_path):
        images, path = torch.zeros(2, 3, 32, 32), tmp_path / "poses.png"
        keypoints = torch.rand(2, 20, 2) - 0.5
        links = torch.tensor([[0, 1]])
        sizes = []
        for legend in (False, True):
            visualization.save_poses(path, images, keypoints, links, [1.0], cell=160, legend=legend)
            sizes.append(pixels(path).shape)
        strip = pixels(path)[sizes[0][0] - 12 :]
        assert sizes[1][1] == sizes[0][1] and sizes[1][0] - sizes[0][0] >= 3 * 24
        assert all((np.abs(strip - colour).max(axis=2) <= 3).sum() > 40 for colour in palette(20))
        assert strip[:, -20:].min() == 255 and strip[-12:].min() == 255  # within the margins

    def test_every_picture_of_poses_may_have_a_legend(self, tmp_path):
        matrix, images = torch.ones(3, 3) - torch.eye(3), torch.zeros(1, 3, 32, 32)
        prototypes, rounds = CORNERS.expand(2, 3, 3, 2), [(CORNERS, images)]
        draw = {
            "prior": lambda path, **o: visualization.save_prior(path, [(0, CORNERS[0], matrix)], **o),
            "keypoints": lambda path, **o: visualization.save_keypoint_prior(path, CORNERS[0], matrix, **o),
            "rounds": lambda path, **o: visualization.save_rounds(path, images, rounds, LINKS, WEIGHTS, **o),
            "memory": lambda path, **o: visualization.save_prototypes(path, prototypes, LINKS, WEIGHTS, **o),
        }
        for name, save in draw.items():
            heights = []
            for legend in (False, True):
                save(tmp_path / f"{name}.png", legend=legend)
                heights.append(pixels(tmp_path / f"{name}.png").shape[0])
            assert heights[1] >= heights[0] + 48, name
        for legend in (False, True):
            (page,) = visualization.save_prototype_pages(tmp_path, prototypes, LINKS, WEIGHTS, legend=legend)
            heights.append(pixels(page).shape[0])
        assert heights[-1] >= heights[-2] + 24


def test_priors_that_lie_beyond_the_image_have_no_panel(tmp_path):
    far, near = (5 * CORNERS[0], torch.zeros(3, 3)), (CORNERS[0], torch.zeros(3, 3))
    widths = []
    for early in (far, near):
        priors = [(0, *early), *((step, *near) for step in (1, 2, 3))]
        visualization.save_prior(tmp_path / "prior.png", priors, cell=60)
        widths.append(pixels(tmp_path / "prior.png").shape[1])
    assert widths[1] == widths[0] + 68  # three small panels in two columns, where two are in one


def test_a_panel_is_drawn_around_its_centre():
    from ppl_fast.visualization._priors import panel

    points, none = np.array([[0.6, 0.2]]), np.zeros((0, 2), int)
    picture = np.asarray(panel(101, points, none, np.zeros(0), extent=0.5, centre=np.array([0.6, 0.2]))).astype(int)
    assert (np.abs(picture[50, 50] - palette(1)[0]) <= 3).all()


def test_grids_have_no_empty_places_where_that_is_possible(tmp_path):
    shapes = {}
    for count in (4, 9, 15):
        images = -torch.ones(count, 3, 32, 32)
        visualization.save_poses(tmp_path / "poses.png", images, CORNERS.expand(count, 3, 2), LINKS, WEIGHTS, cell=32)
        shapes[count] = [(side - 40 + 8) // 40 for side in pixels(tmp_path / "poses.png").shape[:2]]
    assert shapes == {4: [2, 2], 9: [3, 3], 15: [3, 5]}


def test_boxes_lie_in_originals_and_what_is_seen_beneath_them(tmp_path):
    path, grey = tmp_path / "boxes.png", 0.2 * torch.ones(3, 3, 32, 32)
    originals = [Image.new("RGB", (80, 60), (40, 90, 40))] * 2 + [Image.new("RGB", (60, 80), (40, 90, 40))]
    boxes = np.array([[40.0, 30, 20, 20, 0], [40, 30, 20, 20, np.pi / 2], [30, 40, 20, 20, 0]])
    visualization.save_boxes(path, originals, boxes, grey, [f"walk.mp4/{number:06d}" for number in range(3)], cell=200)
    picture = pixels(path)
    # Originals in 200 x 200, as one is upright, 8 down to what is seen; lines of 24: a name, and two of text.
    assert picture.shape[:2] == (20 + 200 + 8 + 200 + 24 + 8 + 2 * 24 + 12, 20 + 3 * 200 + 2 * 8 + 20)
    lines = np.abs(picture - np.array([230, 90, 20])).max(axis=2) < 40
    upright, turned = lines[20:220, 20:220], lines[20:220, 228:428]
    assert upright[70:80].sum() > 1.5 * upright[120:130].sum() > 0  # the thicker side, at the top
    assert turned[:, 120:130].sum() > 1.5 * turned[:, 70:80].sum() > 0  # turned by a right angle, at the right
    assert (picture[228:428, 20:220] == 153).all() and (picture[-40:] < 120).any()  # what is seen; the caption


def test_subjects_are_as_bright_as_before_and_the_rest_is_dimmed(tmp_path):
    images, masks = torch.ones(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    masks[0, 0, 8:24, 8:24], masks[1] = 1, -1.0
    visualization.save_subjects(
        tmp_path / "masks.png", images, masks, ["a", "a long name of a frame/000001.png"], cell=100
    )
    pixels = np.asarray(Image.open(tmp_path / "masks.png").convert("L"), np.int64)
    page = (pixels > 250).mean()
    margin = 20
    first, second = (
        pixels[margin : margin + 100, margin : margin + 100],
        pixels[margin : margin + 100, margin + 108 : margin + 208],
    )
    assert (first[30:70, 30:70] > 250).all() and first[5:20, 5:20].max() < 160 and (second > 250).all() and page > 0.3
