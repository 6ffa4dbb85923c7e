"""The page as one file: its data collected, and joined with HTML, CSS and scripts."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import ppl_fast
from ppl_fast._documents import MAX_PIXELS
from ppl_fast._files import write_text
from ppl_fast._options import integer
from ppl_fast.inference import open_source
from ppl_fast.models import KeypointModel
from ppl_fast.naming import NamedJoints
from ppl_fast.options.footage import Framing
from ppl_fast.page.learned import curves, described, priors
from ppl_fast.page.measured import evaluations
from ppl_fast.page.memory import held, memory_of
from ppl_fast.page.named import beside
from ppl_fast.page.numbers import finite
from ppl_fast.page.pictures import pictures
from ppl_fast.page.rounds import rounds_of
from ppl_fast.training import load_framing, load_model

FRAMES = 600
HIDDEN, ROUNDS = 6, 4
BUDGET = 9_500_000  # bytes of the whole page, about: it is to stay below 10 MB
PICTURES = 0.8  # of what the budget leaves: the poses beside them take the rest
SCRIPTS = ("draw.js", "drawing.js", "learned.js", "memory.js", "poses.js", "rounds.js", "evaluation.js", "page.js")
SUFFIXES = (".html", ".htm")


class Collected(NamedTuple):
    """The content of a page, as JSON types, and what of the source is not in it."""

    data: dict[str, Any]
    skipped: list[tuple[str, str]]  # (name, reason) of files that do not decode, or show nothing


def write_page(
    path: str | os.PathLike[str],
    run: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Collected:
    """Write a run, and the poses that its model finds in a source, as one HTML file.

    Args:
        path: the file to write, which appears whole or not at all.
        run: a run's directory, a checkpoint, or a saved model.
        source: a folder of images and videos, or one of them; without it the page has no pictures.
        options: as `collect` takes them.

    Returns:
        What is in the page.

    Raises:
        ValueError: another suffix than .html or .htm, or what `collect` raises.
        OSError: the file cannot be written.
    """
    check_path(path)
    collected = collect(run, source, **options)
    write_text(path, document(collected.data))
    return collected


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise a ValueError unless the suffix is that of an HTML file."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"write_page: path must end in {' or '.join(SUFFIXES)}, got {path}")


def collect(
    run: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    *,
    model: KeypointModel | None = None,
    joints: NamedJoints | None = None,
    frames: int = FRAMES,
    iterations: int = 1,
    batch_size: int = 32,
    workers: int = 0,
    max_bad_share: float = 0.1,
    max_pixels: int = MAX_PIXELS,
    framing: Framing | None = None,
    progress: bool = False,
) -> Collected:
    """What a page shows, as JSON types: whatever the run or its model does not have is None.

    Args:
        run: a run's directory, a checkpoint, or a saved model.
        source: a folder of images and videos, or one of them.
        model: that of the run, where it was loaded already.
        joints: those of the run, likewise.
        frames: images and frames of videos to show, about, spread evenly; each part of the source has one at least.
        iterations: as `ppl_fast.inference.estimate` has it, for the source.
        batch_size: likewise.
        workers: likewise.
        max_bad_share: likewise.
        max_pixels: likewise.
        framing: likewise, by default as in the run's training.
        progress: likewise.

    Raises:
        FileNotFoundError: `run` holds no model.
        ValueError: a number out of bounds, a damaged file, or what `ppl_fast.inference.estimate` raises.
        ImportError: an extra is not installed.
    """
    frames = integer("collect", "frames", frames, low=1)
    run = Path(run)
    model = (load_model(run) if model is None else model).eval()
    memory, sure = memory_of(model), beside(run, model, joints)
    facts = described(model, run)
    data: dict[str, Any] = facts | {
        "names": sure.keypoint_names(),
        "joints": sure.described(),
        "prior": priors(model, run, facts["step"]),
        "training": curves(run),
        "memory": None if memory is None else held(memory),
        "poses": None,
        "rounds": None,
        "evaluations": evaluations(run),
    }
    skipped: list[tuple[str, str]] = []
    if source is not None:
        framing = load_framing(run) if framing is None else framing
        limits: dict[str, Any] = {"max_bad_share": max_bad_share, "max_pixels": max_pixels}
        media = open_source(source, model.settings.image_size, workers=workers, framing=framing, **limits)
        budget = PICTURES * (BUDGET - len(document(data)))
        shown = pictures(
            model, media, sure, most=frames, some=HIDDEN, budget=budget, iterations=iterations, batch_size=batch_size,
            progress=progress,
        )  # fmt: skip
        data |= {"poses": shown.data, "rounds": rounds_of(model, shown.images, shown.names, ROUNDS)}
        skipped = shown.skipped
    return Collected(finite(data), skipped)


def document(data: dict[str, Any]) -> str:
    """The page's HTML with this content, as `collect` gives it.

    The policy in its head lets run what is in the file alone, by its digest, and nothing that comes over the network.
    """
    style, script = _template("page.css"), "\n".join(map(_template, SCRIPTS))
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
    policy += "base-uri 'none'; form-action 'none'"
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # Within a script element, no text of the data may look like its end, or like a comment.
    text = re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)
    return Template(_template("page.html")).substitute(
        title=html.escape(f"{data['name']}, {data['architecture']}"),
        version=html.escape(ppl_fast.__version__),
        policy=policy,
        style=style,
        script=script,
        data=text,
    )


def _template(name: str) -> str:
    return (files("ppl_fast.page") / "template" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
