"""Charts: learning curves, the connectivity matrix, and errors under occlusion."""

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from picture_cases import pixels

from ppl_fast import visualization
from ppl_fast.visualization import palette


class TestOcclusionChart:
    def result(self, *errors, clean=0.02, masks=(("centre", 0.14), ("blocks", 0.5))):
        rows = [{"mask": kind, "share": share, "rounds": list(errors), "recovered": None} for kind, share in masks]
        return {"protocol": "how", "unit": "fraction of the image size", "clean": clean, "rows": rows}

    def panels(self, monkeypatch, *arguments):
        """What each panel of the chart holds: (title, [y values of each line])."""
        charts = []
        monkeypatch.setattr(visualization._occlusion, "save_chart", lambda _, chart: charts.append(chart))
        visualization.save_occlusion("curve.png", *arguments)
        shown = [axes for axes in charts[0].axes if axes.get_visible()]
        return [(axes.get_title(loc="left"), [list(line.get_ydata()) for line in axes.lines]) for axes in shown]

    def test_curves_of_two_models_a_panel_a_mask(self, monkeypatch):
        results = {"PPL": self.result(0.1, 0.05, 0.04), "AutoLink": self.result(0.12, clean=0.03)}
        panels = self.panels(monkeypatch, results, 0.08)
        assert [title for title, _ in panels] == ["centre, 14% hidden", "blocks, 50% hidden"]
        ppl = [[0.02, 0.02], [0.1, 0.05, 0.04]]  # the clean error, and the curve with its markers
        autolink = [[0.03, 0.03], [0.12]]  # a point: it has no rounds
        assert all(lines == [*ppl, *autolink, [0.08, 0.08]] for _, lines in panels)

    def test_errors_far_beyond_the_mean_poses_are_written_not_drawn(self, monkeypatch):
        charts = []
        monkeypatch.setattr(visualization._occlusion, "save_chart", lambda _, chart: charts.append(chart))
        results = {"PPL": self.result(0.3, 0.05), "AutoLink": self.result(0.425)}
        for baseline in (0.1, None):
            visualization.save_occlusion("curve.png", results, baseline)
        cut, whole = (chart.axes[0] for chart in charts)
        assert cut.get_ylim() == (0, 0.25) and whole.get_ylim()[1] > 0.425
        assert [text.get_text() for text in cut.texts] == ["↑ 0.3", "↑ 0.425"] and not whole.texts

    def test_many_masks_take_several_rows(self, tmp_path):
        sizes = []
        for masks in (1, 4, 5):
            result = {"PPL": self.result(0.1, 0.05, masks=[("blocks", 0.1 * (m + 1)) for m in range(masks)])}
            visualization.save_occlusion(tmp_path / "curve.png", result)
            sizes.append(pixels(tmp_path / "curve.png").shape)
        assert sizes[0][0] == sizes[1][0] < sizes[2][0] / 1.5 and sizes[0][1] < sizes[1][1] == sizes[2][1]

    def test_nothing_to_draw_and_differing_masks_are_refused(self, tmp_path):
        other = self.result(0.1, masks=[("centre", 0.2)])
        for results, message in (
            ({}, "at least one mask of one model"),
            ({"PPL": self.result(masks=())}, "at least one mask of one model"),
            ({"PPL": self.result(0.1), "AutoLink": other}, "all models must be measured with the same masks"),
        ):
            with pytest.raises(ValueError, match=message):
                visualization.save_occlusion(tmp_path / "curve.png", results)
        assert not list(tmp_path.iterdir())


class TestCharts:
    def records(self, count):
        steps = range(10, 10 * count + 1, 10)
        losses = [{"reconstruction": 100 / step, "boundary": 0.0} for step in steps]
        return [
            {"step": step, "loss": 100 / step, "losses": terms, "images_per_second": 50.0}
            for step, terms in zip(steps, losses, strict=True)
        ]

    @pytest.mark.parametrize("count", [1, 2, 200])
    def test_training_curves(self, count, tmp_path):
        path = tmp_path / "training.png"
        visualization.save_training(path, [{"event": "resumed"}, *self.records(count)])
        picture = pixels(path)
        assert picture.shape == (720, 1080, 3)
        # The loss is the darkest curve; "boundary", never positive, is left out; its colour would be the second.
        assert (picture.max(axis=-1) < 60).sum() > 30
        assert (np.abs(picture - palette(1)[0]).max(axis=-1) <= 3).any()

    def test_smoothing_keeps_the_ends(self):
        from ppl_fast.visualization._charts import _smoothed

        values = np.linspace(1, 2, 400)
        smooth = _smoothed(np.where(np.arange(400) == 200, 50.0, values))
        assert len(smooth) == 400 and np.abs(smooth - values).max() < 0.02

    def test_missing_matplotlib_is_one_sentence(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(
            ImportError, match=r"need matplotlib, which is not installed: pip install 'ppl_fast\[viz\]'"
        ):
            visualization.save_training(tmp_path / "training.png", self.records(3))

    def test_no_loss_is_an_error(self, tmp_path):
        with pytest.raises(ValueError, match="records must hold steps with a loss, got 1 without"):
            visualization.save_training(tmp_path / "training.png", [{"step": 3}])
        assert not list(tmp_path.iterdir())

    def test_connectivity_is_drawn_as_a_matrix(self, tmp_path):
        path = tmp_path / "connectivity.png"
        matrix = torch.zeros(4, 4)
        matrix[0, 3] = matrix[3, 0] = 1.0
        visualization.save_connectivity(path, matrix)
        picture = pixels(path)
        darkest = np.abs(picture - (0x14, 0x29, 0x4D)).max(axis=-1) <= 3
        background = np.abs(picture - (0xF5, 0xF6, 0xF8)).max(axis=-1) <= 3
        assert darkest.sum() / background.sum() == pytest.approx(2 / 14, rel=0.1)  # two of sixteen cells
        with pytest.raises(ValueError, match=r"connectivity must have shape \(N, N\), got \(2, 3\)"):
            visualization.save_connectivity(path, torch.zeros(2, 3))
