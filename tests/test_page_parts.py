"""Every control of the page is operated in a headless Chromium, and its effect asserted."""

import copy

import numpy as np
import pytest
import torch
from page_cases import MARKS, attribute, choose, count, dots, parts, text, texts

from ppl_fast.page import collect
from ppl_fast.page.memory import memory_of
from ppl_fast.training import load_model

pytest_plugins = ["page_browser"]
pytestmark = MARKS


class TestPoses:
    def test_the_slider_goes_through_the_pictures(self, page, data):
        here = [picture for picture in data["poses"]["pictures"] if picture["clip"] == 0]
        assert "images: 7 of 14 shown; clip3.mp4: 4 of 7 frames, one in 2" in text(page, "poses-about")
        assert text(page, "frame-value") == f"1 of {len(here)}"
        page.focus("#frame")
        page.press("ArrowRight", "ArrowRight")
        assert text(page, "frame-value") == f"3 of {len(here)}" and here[2]["name"] in text(page, "picture-caption")
        np.testing.assert_allclose(dots(page, "picture"), here[2]["points"], atol=1e-3)
        assert attribute(page, "#picture image", "href") == here[2]["image"]
        assert attribute(page, "#picture", "viewBox") == "-0.5 -0.5 48 32"
        rows = page.value(
            "[...document.querySelectorAll('#points tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
        )
        assert rows[5] == ["5", *(f"{v:.1f}" for v in here[2]["points"][5]), f"{here[2]['measures']['memory'][5]:.4f}"]
        page.press("End")
        assert text(page, "frame-value") == f"{len(here)} of {len(here)}"

    def test_buttons_go_on_back_and_by_themselves(self, page):
        page.click("#frame-on")
        page.click("#frame-on")
        page.click("#frame-back")
        assert text(page, "frame-value").startswith("2 of")
        page.click("#frame-play")
        assert attribute(page, "#frame-play", "aria-pressed") == "true"
        page.wait("Number(document.getElementById('frame').value) >= 3")
        page.click("#frame-play")
        stopped = text(page, "frame-value")
        assert attribute(page, "#frame-play", "aria-pressed") == "false"
        page.value("new Promise(done => setTimeout(done, 1200))")
        assert text(page, "frame-value") == stopped

    def test_another_part_of_the_source_is_chosen(self, page):
        page.focus("#clip")
        choose(page, "clip", "clip")
        assert text(page, "frame-value") == "1 of 4" and text(page, "picture-caption").startswith("clip3.mp4, frame 0")
        page.click("#frame-play")  # to the end, where it stops by itself
        page.wait("document.getElementById('frame-value').textContent === '4 of 4'")
        page.wait("document.getElementById('frame-play').getAttribute('aria-pressed') === 'false'")
        assert text(page, "picture-caption").startswith("clip3.mp4, frame 6, 0.24 s")

    def test_a_click_on_the_track_jumps(self, page):
        page.click("#track", across=0.7)
        assert text(page, "frame-value") == "5 of 7"
        assert page.value("document.querySelector('#track .now').x1.baseVal.value") == pytest.approx(4.5)

    def test_the_least_plausible_come_first_and_are_shown_at_a_click(self, page, data):
        order = sorted(data["poses"]["pictures"], key=lambda picture: -np.mean(picture["measures"]["memory"]))
        worst = texts(page, "#least b")
        assert worst == [f"{np.mean(p['measures']['memory']):.4f}" for p in order[:12]]
        for number in (0, 3):
            page.click(f"#least li:nth-child({number + 1}) button")
            np.testing.assert_allclose(dots(page, "picture"), order[number]["points"], atol=1e-3)
            assert page.value("document.getElementById('clip').value") == str(order[number]["clip"])
            current = "[...document.querySelectorAll('#least button')].findIndex(b => b.ariaCurrent === 'true')"
            assert page.value(current) == number

    def test_the_pose_as_the_memory_holds_it_is_drawn_beneath(self, page):
        assert count(page, "#picture .dashed") == 0
        page.click("#recalled")
        assert count(page, "#picture .dashed circle") == count(page, "#picture .shift") == 6
        page.click("#recalled")
        assert count(page, "#picture .dashed") == 0

    def test_a_confidence_may_stand_beside_the_distance(self, show, data):
        measured = copy.deepcopy(data)
        measure = {"key": "confidence", "label": "Confidence", "unit": "of 1", "better": "high", "about": "How sure."}
        measured["poses"]["measures"].append(measure)
        for i, picture in enumerate(measured["poses"]["pictures"]):
            picture["measures"]["confidence"] = [0.1 * i / 2] * 6 if i != 3 else [None] * 6
        page = show(measured)
        assert count(page, "#measure option") == 2
        choose(page, "measure", "Conf")
        worst = texts(page, "#least b")
        assert worst == [f"{0.05 * i:.4f}" for i in range(len(measured["poses"]["pictures"])) if i != 3][:12]
        assert "Confidence, up to" in text(page, "track-caption") and "confidence 0.0000" in text(
            page, "picture-caption"
        )

    def test_details_open(self, page):
        page.focus("#poses summary")
        page.press("Enter")
        assert page.value("document.querySelector('#poses details').open") and count(page, "#points tbody tr") == 6


class TestRounds:
    def test_the_slider_shows_what_each_round_saw_and_marks_its_errors(self, page, data):
        first = data["rounds"]["pictures"][0]
        marked = "[...document.querySelectorAll('#hidden-errors td.now')].map(c => c.textContent)"
        assert page.value(marked) == ["0.0300", "0.0500", "0.0900", "0.2000", "0.9000", "0.9000", "0.2000", "0.1000"]
        page.focus("#round")
        page.press("ArrowRight", "ArrowRight")
        assert (
            text(page, "round-value")
            == f"2 of 4; {first['passes'][2]['moved']:.4f} of the image size from the pose on the whole picture"
        )
        assert attribute(page, "#seen image", "href") == first["passes"][2]["image"]
        np.testing.assert_allclose(dots(page, "seen"), first["passes"][2]["points"], atol=1e-3)
        np.testing.assert_allclose(dots(page, "whole"), first["points"], atol=1e-3)
        assert page.value(marked) == ["–", "–", "0.0300", "–", "–", "–", "0.8000", "–"]

    def test_another_picture_is_chosen(self, page, data):
        choose(page, "hidden", "3")
        np.testing.assert_allclose(dots(page, "seen"), data["rounds"]["pictures"][2]["passes"][0]["points"], atol=1e-3)
        names = texts(page, "#hidden option")
        assert any("/00000" in name for name in names)  # frames of a video

    def test_measured_rounds_alone_have_their_slider(self, show, finished):
        page = show(collect(finished).data)
        assert parts(page)[0] == "occlusion"
        assert count(page, "#hidden-pictures") == 0
        page.focus("#round")
        page.press("End")
        assert text(page, "round-value") == "2 of 2"
        assert page.value("document.querySelector('#hidden-errors th.now').textContent") == "round 2"


class TestLearned:
    def test_the_prior_moves_through_training_and_the_curve_with_it(self, page, data):
        steps = data["prior"]["steps"]
        assert text(page, "step-value") == "step 4"
        page.focus("#step")
        page.press("Home")
        assert text(page, "step-value") == f"step {steps[0]}"
        np.testing.assert_allclose(dots(page, "prior-pose"), data["prior"]["points"][0], atol=1e-3)
        assert f"the line is at step {steps[0]}" in text(page, "curve-caption")
        page.click("#step-play")
        page.wait("document.getElementById('step-value').textContent === 'step 4'")
        page.wait("document.getElementById('step-play').getAttribute('aria-pressed') === 'false'")
        np.testing.assert_allclose(dots(page, "prior-pose"), data["prior"]["points"][-1], atol=1e-3)

    def test_another_curve_is_chosen(self, page):
        path = "document.querySelector('#curve path').getAttribute('d')"
        before = page.value(path)
        page.focus("#term")
        choose(page, "term", "memory")
        assert page.value(path) != before and page.value(path).count("L") == 2
        assert attribute(page, "#curve", "aria-label").startswith("memory over training")

    def test_links_as_a_matrix_and_a_table(self, page, data):
        assert count(page, "#matrix rect") == 1 + 2 * 15
        shown = page.value("[...document.querySelectorAll('#link-table tbody tr')].map(r => r.cells[2].textContent)")
        weights = sorted(data["weights"], reverse=True)[: data["linksShown"]]
        assert shown == [f"{weight:.3f}" for weight in weights]

    def test_evaluations_are_tables(self, page):
        rows = page.value("[...document.querySelectorAll('#evaluations table')[0].rows].map(r => r.textContent)")
        assert rows[1:] == [
            "regressionPPL0.03000.0900mean pose",
            "regressionAutoLink0.05000.0900mean pose",
            "limb sharePPL0.80000.0900mean pose",
        ]
        assert texts(page, "#evaluations h3") == [
            "metrics.json",
            "evaluation.json",
        ]
        page.click("#evaluations summary")
        assert page.value("document.querySelector('#evaluations details').open")
        joints = page.value(
            "[...document.querySelectorAll('#evaluations details table')[0].rows].map(r => r.textContent)"
        )
        assert joints[1:] == ["head0.0100", "hand–"]

    def test_options_open(self, page):
        page.click("#about summary")
        assert page.value("document.querySelector('#about details').open")
        assert "memory_banks" in text(page, "options")


class TestMemory:
    def chosen(self, page, data):
        """The vector of each bank, as the sliders stand."""
        ranks = page.value("[...document.querySelectorAll('#banks input')].map(i => Number(i.value))")
        shares = np.array(data["memory"]["shares"])
        return [
            int(np.argsort(-bank, kind="stable")[rank - 1]) if rank else -1
            for bank, rank in zip(shares, ranks, strict=True)
        ]

    def decoded(self, finished, chosen):
        """The pose of these vectors, by the model itself."""
        memory = memory_of(load_model(finished))
        tokens = [bank.mean(0) if k < 0 else bank[k] for bank, k in zip(memory.codebook, chosen, strict=True)]
        with torch.no_grad():
            return memory.decode(torch.stack(tokens)[None])[0].numpy()

    def test_the_pose_is_what_the_models_decoder_makes_of_the_chosen_vectors(self, page, data, finished):
        np.testing.assert_allclose(dots(page, "memory-pose"), self.decoded(finished, [-1] * 4), atol=2e-5)
        page.focus("#bank-2")
        page.press("ArrowRight", "ArrowRight")
        chosen = self.chosen(page, data)
        assert chosen[2] >= 0 and chosen[0] == chosen[1] == chosen[3] == -1
        assert text(page, "bank-2-value").startswith(f"vector {chosen[2] + 1}, ")
        np.testing.assert_allclose(dots(page, "memory-pose"), self.decoded(finished, chosen), atol=2e-5)
        assert "1 of 4 banks chosen" in text(page, "memory-caption")

    def test_buttons_choose_for_all_banks(self, page, data, finished):
        page.click("#memory-random")
        chosen = self.chosen(page, data)
        assert min(chosen) >= 0
        np.testing.assert_allclose(dots(page, "memory-pose"), self.decoded(finished, chosen), atol=2e-5)
        page.click("#memory-picture")
        codes = data["poses"]["pictures"][0]["codes"]
        assert self.chosen(page, data) == codes
        np.testing.assert_allclose(dots(page, "memory-pose"), self.decoded(finished, codes), atol=2e-5)
        page.click("#memory-means")
        assert self.chosen(page, data) == [-1] * 4 and text(page, "bank-0-value") == "the mean"

    def test_differences_are_drawn_larger(self, page, data, finished):
        page.click("#memory-random")
        mean, pose = self.decoded(finished, [-1] * 4), self.decoded(finished, self.chosen(page, data))
        choose(page, "gain", "5")
        np.testing.assert_allclose(dots(page, "memory-pose"), mean + 5 * (pose - mean), atol=1e-4)
        assert "drawn 5 times as large" in text(page, "memory-caption")
