"""How a run was measured, from the files that an evaluation leaves, as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppl_fast.page.numbers import finite

FILES = ("metrics.json", "evaluation.json")  # by the demo, by `ppl-fast evaluate`


def evaluations(run: Path) -> list[dict[str, Any]]:
    """What was measured on the run, the latest first; none where nothing was.

    Returns:
        Of each file {"file", "about": texts, "scores": [{"measure", "model", "value", "baseline", "baselineName",
        "protocol", "joints": {name: value}}], "hidden": None, or under occlusion {"protocol", "measures": [{"measure",
        "rows": [{"mask", "model", "values": by round, "recovered"}]}]}}.

    Raises:
        ValueError: a file is damaged.
    """
    files = [run / name for name in FILES if (run / name).is_file()]
    return [_evaluation(path) for path in sorted(files, key=lambda path: -path.stat().st_mtime)]


def _evaluation(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        models = {metrics.get("model", ""): metrics} | metrics.get("beside", {})
        images = metrics["images"]
        about = [f"{images['train']} training and {images['test']} test images: {metrics['split']}."]
        about += [f"Note: {note}." for note in metrics.get("notes", ())]
        measures = [name for name, entry in metrics.items() if isinstance(entry, dict) and "value" in entry]
        scores = [
            _score(measure, name, result[measure])
            for measure in measures
            for name, result in models.items()
            if measure in result
        ]
        hidden = {name: result["occlusion"] for name, result in models.items() if "occlusion" in result}
        found = {"file": path.name, "about": about, "scores": scores, "hidden": _hidden(hidden) if hidden else None}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of metrics: {type(error).__name__}: {error}") from error
    cleaned: dict[str, Any] = finite(found)
    return cleaned


def _score(measure: str, model: str, score: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "measure": measure.replace("_", " "),
        "model": model,
        "value": float(score["value"]),
        "baseline": score.get("baseline"),
        "baselineName": score.get("baseline_name"),
        "protocol": score["protocol"],
        "joints": score.get("per_joint", {}),
    }


def _hidden(results: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured under occlusion, mask by mask, the models beneath one another; the clean images first."""
    first = next(iter(results.values()))
    tables = [("rounds", "clean_rounds", f"error, {first['unit']}"), ("ridge", "clean_ridge", "error by ridge")]
    tables.append(("pck", "clean_pck", f"PCK@{first.get('threshold')}"))
    measures = []
    for key, clean, title in tables:
        if not all(key in row for result in results.values() for row in result["rows"]):
            continue
        rows = [
            {"mask": "nothing", "model": name, "values": result.get(clean, [result["clean"]]), "recovered": None}
            for name, result in results.items()
        ]
        for number, row in enumerate(first["rows"]):
            mask = f"{row['mask']}, {row['share']:.0%}"
            for name, result in results.items():
                of = result["rows"][number]
                recovered = of["recovered"] if key == "rounds" else None
                rows.append({"mask": mask, "model": name, "values": of[key], "recovered": recovered})
        measures.append({"measure": title, "rows": rows})
    return {"protocol": first["protocol"], "measures": measures}
