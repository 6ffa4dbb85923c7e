"""The page in a headless Chromium as a whole: keyboard, themes, what is absent; it never complains."""

import copy

import numpy as np
import pytest
from page_cases import AUTOLINK, MARKS, count, dots, parts, text

from ppl_fast import AutoLink
from ppl_fast.page import collect

pytest_plugins = ["page_browser"]
pytestmark = MARKS


class TestEverywhere:
    def test_each_part_is_there_and_the_links_lead_to_it(self, page):
        ids = ["poses", "occlusion", "prior", "training", "memory", "links", "evaluation", "about"]
        assert parts(page) == ids
        assert text(page, "name") == "mine" and "6 keypoints, 32 x 32 pixels, 4 steps" in text(page, "facts")
        for number, part in enumerate(ids, start=1):
            page.click(f"#parts li:nth-child({number}) a")
            page.wait(f"location.hash === '#{part}'")
        top = page.value("document.getElementById('about').getBoundingClientRect().top")
        assert top < page.value("innerHeight")

    def test_every_control_has_a_name_and_is_reached_by_the_keyboard(self, page):
        names = "e => (e.labels?.length ? e.labels[0].textContent : e.ariaLabel ?? e.textContent).trim()"
        assert page.value(f"[...document.querySelectorAll('input, select, button')].map({names}).every(Boolean)")
        wanted = page.value("[...document.querySelectorAll('input, select, button, summary, a')].length")
        page.value("window.reached = new Set(); addEventListener('focusin', event => reached.add(event.target))")
        page.press(*["Tab"] * (wanted + 12))
        reached = "[...document.querySelectorAll('input, select, button, summary, a')].filter(e => !reached.has(e))"
        assert page.value(f"{reached}.map(e => e.id || e.outerHTML)") == []
        page.focus("#frame-play")
        page.press("Tab")
        assert page.value("getComputedStyle(document.activeElement).outlineWidth") != "0px"

    def test_the_keyboard_skips_to_the_content(self, page):
        page.press("Tab")
        assert page.value("document.activeElement.className") == "skip"
        page.press("Enter")
        page.wait("location.hash === '#content'")

    def test_fewer_links_are_drawn_in_all_drawings(self, page, data):
        drawings = ("picture", "seen", "whole", "prior-pose", "memory-pose")
        page.focus("#links-shown")
        page.press("Home")
        assert text(page, "links-shown-value") == "0 of 15"
        assert all(count(page, f"#{drawing} .pose line") == 0 for drawing in drawings)
        assert count(page, "#link-table tbody tr") == 0
        page.press("ArrowRight", "ArrowRight")
        assert all(count(page, f"#{drawing} .pose:not(.ghost) line") == 2 for drawing in drawings)
        heaviest = [data["links"][e] for e in np.argsort(data["weights"])[::-1][:2]]
        rows = page.value("[...document.querySelectorAll('#link-table tbody tr')].map(r => r.cells[1].textContent)")
        assert rows == [f"{i} – {j}" for i, j in heaviest]

    def test_numbers_go_and_come(self, page):
        assert count(page, "#picture text") == count(page, "#prior-pose text") == 6
        page.click("#numbers")
        assert count(page, ".drawing text") == 0
        page.focus("#numbers")
        page.press("Space")
        assert count(page, "#picture text") == 6

    def test_a_keypoint_is_picked_out_until_it_is_let_go(self, page):
        page.click("#legend li:nth-child(3) button")
        assert page.value("document.querySelector('#legend [aria-pressed=true]').textContent") == "2"
        assert count(page, "#picture .keypoint.faded") == count(page, "#prior-pose .keypoint.faded") == 5
        assert page.value("document.querySelector('#picture .keypoint:not(.faded) text').textContent") == "2"
        page.focus("#legend li:nth-child(3) button")
        page.press("Enter")
        assert count(page, ".faded") == 0 and count(page, "#legend [aria-pressed=true]") == 0

    @pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
    def test_it_fits_the_window_in_both_themes(self, show, data, width, scheme):
        page = show(data, width=width, scheme=scheme)
        assert page.value("document.documentElement.scrollWidth") <= width
        ground = page.value("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]

    def test_numbers_of_a_pose_do_not_lie_on_dots_or_on_each_other(self, show, data):
        """As far as the keypoints leave room: here they stand in a grid, as in a pose of 16 they might."""
        spread = copy.deepcopy(data)
        x, y = np.meshgrid([6.0, 18.0, 30.0, 42.0], [5.0, 12.0, 19.0, 27.0])
        picture = spread["poses"]["pictures"][0]
        picture["points"] = np.stack([x, y], axis=-1).reshape(16, 2).tolist()
        picture["measures"], picture["recalled"] = {"memory": [0.1] * 16}, picture["points"]
        spread["colours"] = [spread["colours"][i % 6] for i in range(16)]
        for part in ("prior", "memory", "rounds"):
            spread[part] = None
        page, sides = show(spread), "b => [b.x, b.y, b.width, b.height]"
        numbers, circles = (
            page.value(f"[...document.querySelectorAll('#picture {kind}')].map(e => e.getBBox()).map({sides})")
            for kind in ("text", "circle.outer")
        )
        assert len(numbers) == len(circles) == 16
        # A text's box holds the height of its line; its digits fill about 0.7 of it.
        digits = [(x, y + 0.15 * h, w, 0.7 * h) for x, y, w, h in numbers]
        for i, box in enumerate(digits):
            for other in [*digits[:i], *circles]:
                assert shared(box, other) < 0.1 * box[2] * box[3], (i, box, other)
        assert all(x > -0.5 and y > -0.5 and x + w < 47.5 and y + h < 31.5 for x, y, w, h in digits)


def test_what_a_model_does_not_have_is_absent(show, tmp_path, images):
    AutoLink(5, 32, **AUTOLINK).save_pretrained(tmp_path / "run")
    page = show(collect(tmp_path / "run", images).data)
    assert parts(page) == ["poses", "links", "about"]
    assert count(page, "#parts li") == 3
    assert count(page, "#track") == count(page, "#least") == count(page, "#clip") == count(page, "#measured") == 0
    page.focus("#frame")
    page.press("ArrowRight")
    assert text(page, "frame-value") == "2 of 10" and len(dots(page, "picture")) == 5


def test_hostile_names_stay_text(show, data):
    hostile = "</script><img src=x onerror=alert(1)>"
    named = copy.deepcopy(data) | {"name": hostile, "names": [hostile] * 6}
    named["poses"]["pictures"][0]["name"] = hostile
    page = show(named)
    assert text(page, "name") == hostile and count(page, "img[src=x]") == 0
    assert hostile in text(page, "picture-caption")
    assert page.value("document.querySelector('#points tbody td').textContent") == hostile


def test_a_point_that_is_not_known_is_not_drawn(show, data):
    some = copy.deepcopy(data)
    some["poses"]["pictures"][0]["points"][4] = [None, None]
    page = show(some)
    assert len(dots(page, "picture")) == 5
    assert page.value("document.querySelectorAll('#points tbody tr')[4].textContent").startswith("4––")


def shared(one, other):
    (x1, y1, w1, h1), (x2, y2, w2, h2) = one, other
    return max(0, min(x1 + w1, x2 + w2) - max(x1, x2)) * max(0, min(y1 + h1, y2 + h2) - max(y1, y2))
