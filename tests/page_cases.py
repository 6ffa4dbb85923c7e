"""For the tests of the page: a small run with everything that a page shows, and what to ask of a page."""

import json
import os

import numpy as np
import pytest
from chromium import FOUND

pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import run_steps

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason="there is no Chromium here; CHROMIUM may name one"),
]
AUTOLINK = {"detector_base": 4, "detector_size": 32, "translator": "light", "translator_base": 4}
AUTOLINK |= {"translator_levels": 3, "reconstruction_loss": "mse"}


def score(value, **more):
    return {"value": value, "protocol": "how it was measured", "baseline": 0.09, "baseline_name": "mean pose"} | more


def hidden(clean, errors, recovered, near):
    rows = [{"mask": "blocks", "share": 0.5, "rounds": errors, "recovered": recovered, "pck": near}]
    found = {"protocol": "occlusion", "unit": "fraction of the image size", "clean": clean, "rows": rows}
    return found | {"clean_pck": [0.9], "threshold": 0.05}


METRICS = {
    "split": "separate training and test sets",
    "notes": ["2 labels name no image"],
    "images": {"train": 8, "test": 2},
    "model": "PPL",
    "regression": score(0.03, per_joint={"head": 0.01, "hand": None}),
    "limb_share": score(0.8),
    "occlusion": hidden(0.03, [0.09, 0.04, 0.03], 0.9, [0.2, 0.7, 0.8]),
    "beside": {"AutoLink": {"regression": score(0.05), "occlusion": hidden(0.05, [0.2], None, [0.1])}},
}


def finished_run(out, images):
    """A run of four steps, with an evaluation and later metrics of two models."""
    run_steps(images, out, 4)
    older = {key: value for key, value in METRICS.items() if key not in ("occlusion", "beside", "model")}
    (out / "evaluation.json").write_text(json.dumps(older))
    os.utime(out / "evaluation.json", (0, 0))
    (out / "metrics.json").write_text(json.dumps(METRICS))
    return out


def text(page, element):
    return page.value(f"document.getElementById('{element}').textContent")


def texts(page, selector):
    return page.value(f"[...document.querySelectorAll('{selector}')].map(e => e.textContent)")


def count(page, selector):
    return page.value(f"document.querySelectorAll('{selector}').length")


def attribute(page, selector, name):
    return page.value(f"document.querySelector('{selector}').getAttribute('{name}')")


def choose(page, select, option):
    """Choose an option of a list by the keyboard: the first letters of its text."""
    page.focus(f"#{select}")
    page.write(option)


def parts(page):
    return page.value("[...document.querySelectorAll('section')].map(s => s.id)")


def dots(page, drawing):
    """(N, 2), where the keypoints of a drawing are, in its coordinates."""
    found = f"[...document.querySelectorAll('#{drawing} .keypoint circle:last-of-type')]"
    return np.array(page.value(f"{found}.map(c => [c.cx.baseVal.value, c.cy.baseVal.value])"))
