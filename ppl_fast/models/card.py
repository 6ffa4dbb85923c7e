"""The card of a model on the Hugging Face Hub: what it is, how to load it, and what else is known of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import ppl_fast
from ppl_fast._extras import needing
from ppl_fast.options.config import OWN_TRUNK

if TYPE_CHECKING:
    from ppl_fast.models.base import KeypointModel

CARD = "README.md"
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
TAGS = ["pose-estimation", "unsupervised-learning", "keypoints", "pose-prior"]


def check_license(license: str) -> None:
    """Raise a ValueError where this does not look like one of the hub's identifiers."""
    if not LICENSE.fullmatch(license):
        raise ValueError(
            f"push: license must be an identifier as the hub has them, such as mit or cc-by-4.0, got {license!r}"
        )


def card(
    model: KeypointModel,
    name: str,
    license: str,
    *,
    revision: str | None = None,
    training: Mapping[str, Any] | None = None,
    sections: Sequence[str] = (),
    pictures: Mapping[str, str] | None = None,
) -> str:
    """Markdown with the metadata that the hub reads.

    Args:
        model: the model.
        name: org/name.
        license: an identifier of the hub's.
        revision: the branch that it is sent to, if that is not the main one.
        training: options of its training that differ from the defaults.
        sections: of Markdown, each with its heading.
        pictures: files by what they show.

    Raises:
        ImportError: the extra `hub` is not installed.
    """
    with needing("models are sent to the hub by", "hub"):
        from huggingface_hub import ModelCardData

    about = ModelCardData(license=license, library_name="ppl_fast", pipeline_tag="keypoint-detection", tags=TAGS)
    settings, links = model.settings, len(model.links)
    parts = [
        f"---\n{about.to_yaml()}\n---",
        f"# {name}",
        f"{settings.num_keypoints} keypoints and {links} links between them, learned from unlabelled images by the "
        f"{type(model).__name__} of ppl_fast {ppl_fast.__version__}.",
        *(f"![{what}]({file})" for what, file in (pictures or {}).items()),
        f"## Use\n\n{_use(model, name, revision)}",
        *sections,
    ]
    changed = [("model", *row) for row in changes(settings, type(settings).machine)]
    changed += [("training", option, value) for option, value in (training or {}).items()]
    if changed:
        parts.append(f"## Options other than the defaults\n\n{table(['of the', 'option', 'value'], changed)}")
    return "\n\n".join(parts) + "\n"


def _use(model: KeypointModel, name: str, revision: str | None) -> str:
    size, count, named = model.settings.image_size, model.settings.num_keypoints, type(model).__name__
    where = "ppl_fast" if hasattr(ppl_fast, named) else "ppl_fast.models"
    options = [f'"{name}"'] + ([f'revision="{revision}"'] if revision else [])
    options += ["trunk=module"] if model.config.get("trunk") == OWN_TRUNK else []
    return f"""```sh
pip install 'ppl_fast[train,data,hub]'
ppl-fast estimate {name}{f"@{revision}" if revision else ""} photos/ --out poses.csv
```

```python
import {where}

model = {where}.{named}.from_pretrained({", ".join(options)})
keypoints = model.estimate(images)  # (B, 3, {size}, {size}) in [-1, 1] -> (B, {count}, 2), (x, y) in [-1, 1]
```"""


def changes(options: Any, left_out: Iterable[str], defaults: Mapping[str, Any] | None = None) -> list[tuple[str, Any]]:
    """Name and value of the options of a dataclass that differ from its defaults, or from others, in their order."""
    usual = {field.name: field.default for field in fields(options)} | dict(defaults or {})
    found = {name: getattr(options, name) for name in usual if name not in left_out}
    return [(name, value) for name, value in found.items() if value != usual[name]]


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as a table of Markdown, in which text stands for itself."""
    lines = [columns, ["---"] * len(columns), *([plain(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(value: Any) -> str:
    """A value as text that Markdown and HTML leave alone."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return re.sub(r"([\\`*_<>\[\]|&])", r"\\\1", " ".join(text.split()))
