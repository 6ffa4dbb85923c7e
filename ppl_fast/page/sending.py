"""A run as a folder for the Hugging Face Hub: the model, what was made for it, and a card of what the run knows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppl_fast._files import write_text
from ppl_fast.data.sets import known_name
from ppl_fast.inference import load_calibration
from ppl_fast.models import KeypointModel, hub, load_pretrained
from ppl_fast.models.card import CARD, card, changes, plain, table
from ppl_fast.models.checkpoint import CALIBRATION, CONFIG, FILES, JOINTS, JOINTS_REPORT, OPTIONS, WEIGHTS
from ppl_fast.naming import load_joints
from ppl_fast.options import CONFIGS
from ppl_fast.options.footage import AUTO, MOVING
from ppl_fast.page.measured import FILES as METRICS
from ppl_fast.page.measured import evaluations
from ppl_fast.training.checkpoint import list_checkpoints, load_state
from ppl_fast.training.config import OF_THE_MACHINE, TrainConfig, read_config
from ppl_fast.training.run import find_model, run_of, training_of

# Options that say nothing of what was learned.
UNTOLD = (
    *OF_THE_MACHINE,
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "picture_every",
    "tracker",
    "timeout",
)
INSTEAD = {"crop": "boxes.csv", "masks": "masks", "labels": "labels"}  # of the paths of files and folders
POSES = "poses.png"


def fill(
    folder: str | os.PathLike[str],
    run: str | os.PathLike[str],
    name: str,
    license: str,
    *,
    revision: str | None = None,
    poses: bool = False,
) -> list[str]:
    """Write what is to be sent into an empty folder, and read it as those will who load it.

    No path of the machine and no name of an image is among it.

    Args:
        folder: an empty one.
        run: run directory, checkpoint, or saved model.
        name: org/name.
        license: an identifier of the hub's.
        revision: the branch that it is meant for.
        poses: whether the run's poses.png goes along, which shows images of its training.

    Returns:
        What is left out that could be expected, in sentences.

    Raises:
        FileNotFoundError: `run` holds no model, or no poses.png where it is asked for.
        ImportError: an extra is not installed.
        ValueError: a damaged file, a wrong name or licence.
    """
    hub.check(name, license)
    folder, source, whole = Path(folder), find_model(run), run_of(run)
    for file in (WEIGHTS, CONFIG, CALIBRATION, JOINTS, JOINTS_REPORT):
        if (source / file).is_file():
            shutil.copyfile(source / file, folder / file)
    model = load_pretrained(folder)
    load_calibration(folder, model.settings.num_keypoints)
    load_joints(folder, model)
    hub.without_machine(folder, model)
    known = {} if whole is None else _training(Path(whole), folder, model)
    of_run = whole if whole is not None and source.resolve() == (whole / "model").resolve() else None
    scores, notes = _scores(of_run, source) if of_run else ([], [])
    state = _state(of_run, source)
    pictures = _pictures(folder, model, of_run, poses)
    if of_run and not poses and (of_run / POSES).is_file():
        notes.append(f"{POSES} is left out, since it shows images of the training; --poses sends it")
    sections = [*_data(whole, state), *_named(folder), *scores]
    text = card(model, name, license, revision=revision, training=known, sections=sections, pictures=pictures)
    write_text(folder / CARD, text)
    load_pretrained(folder)
    return notes


def _training(run: Path, folder: Path, model: KeypointModel) -> dict[str, Any]:
    """Write config.yaml as the run has it, but for what is of the machine; gives the options that are not the usual."""
    import yaml

    options = {name: value for name, value in training_of(run).items() if name not in OF_THE_MACHINE}
    options |= {name: other for name, other in INSTEAD.items() if options.get(name) not in (None, MOVING, AUTO)}
    trained = TrainConfig(**options)
    kept = {name: value for name, value in model.config.items() if name not in model.Config.machine}
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    sections = {"architecture": model.architecture, "model": kept, "train": options}
    write_text(folder / OPTIONS, yaml.safe_dump(sections, sort_keys=False))
    return dict(changes(trained, UNTOLD, CONFIGS[model.architecture].train_defaults))


def _state(run: Path | None, source: Path) -> dict[str, Any]:
    """What the checkpoint of these weights keeps beside them; nothing where there is none."""
    checkpoint = source if run is None else next(iter(list_checkpoints(run)[-1:]), source)
    return load_state(checkpoint) if (checkpoint / "state.json").is_file() else {}


def _data(run: Path | None, state: Mapping[str, Any]) -> list[str]:
    """Which images the model was trained on, and for how long, as far as it is known."""
    lines = []
    published = known_name(read_config(run / OPTIONS).get("data") or "") if run else None
    if published:
        lines.append(f"- The data set {published}.")
    if "count" in state:
        (w, h), (wider, higher) = state["sizes"]
        sizes = (
            f"of {w} x {h} pixels" if (w, h) == (wider, higher) else f"{w} to {wider} pixels wide, {h} to {higher} high"
        )
        labels = "labels of a few" if run and training_of(run).get("labels") else "no labels"
        lines.append(f"- {state['count']:,} images, {sizes}; {labels}.")
    if "step" in state:
        lines.append(f"- {state['step']:,} steps, {state['seconds'] / 3600:.2g} hours.")
    return [f"## Training\n\n{chr(10).join(lines)}"] if lines else []


def _named(folder: Path) -> list[str]:
    """That keypoints have been named, and that confidence is calibrated."""
    said = []
    if (folder / JOINTS).is_file():
        said.append(
            "It has named joints, by labels in its training or by `ppl-fast name`; `estimate` writes them, and "
            "`--keypoints` leaves them."
        )
    if (folder / CALIBRATION).is_file():
        said.append("`ppl-fast calibrate` was run: confidence is a likelihood, and errors are expected ones.")
    return [f"## Beside the keypoints\n\n{' '.join(said)}"] if said else []


def _scores(run: Path, source: Path) -> tuple[list[str], list[str]]:
    """The last evaluation as a section, or why there is none, in a sentence."""
    weights = (source / WEIGHTS).stat().st_mtime
    there = [run / name for name in METRICS if (run / name).is_file()]
    if not there:
        return [], ["the card has no evaluation, since there was none; ppl-fast evaluate makes one"]
    if max(file.stat().st_mtime for file in there) < weights:
        return [], ["the card has no evaluation, since the weights are newer than it; ppl-fast evaluate makes another"]
    last = evaluations(run)[0]
    first = last["scores"][0]["model"]  # others may be named by paths
    own = [score for score in last["scores"] if score["model"] == first]
    keys = {"measure": "measure", "value": "value", "baseline": "baseline", "what that is": "baselineName"}
    rows = [["-" if score[key] is None else score[key] for key in keys.values()] for score in own]
    protocols = "\n".join(f"- {plain(score['measure'])}: {plain(score['protocol'])}" for score in own)
    return [f"## Evaluation\n\n{plain(last['about'][0])}\n\n{table(list(keys), rows)}\n\n{protocols}"], []


def _pictures(folder: Path, model: KeypointModel, run: Path | None, poses: bool) -> dict[str, str]:
    """Draw what was learned, from these weights, and take poses.png along where it is asked for."""
    from ppl_fast.visualization import save_connectivity, save_keypoint_prior

    prior = model.prior()
    if prior is not None:
        save_keypoint_prior(folder / "prior.png", prior.keypoints, prior.connectivity, legend=True)
        found = {"The pose prior": "prior.png"}
    else:
        save_connectivity(folder / "connectivity.png", model.connectivity())
        found = {"The weight of every link": "connectivity.png"}
    if poses:
        if run is None or not (run / POSES).is_file():
            raise FileNotFoundError(f"--poses: there is no {POSES} of a run with these weights")
        shutil.copyfile(run / POSES, folder / POSES)
        found["Poses on images of the training"] = POSES
    return found


def contents(folder: Path) -> list[tuple[str, int]]:
    """Names and bytes of what is in the folder, the model first."""
    order = [*FILES, CARD]
    found = sorted(folder.iterdir(), key=lambda path: (order.index(path.name) if path.name in order else 99, path.name))
    return [(path.name, path.stat().st_size) for path in found]
