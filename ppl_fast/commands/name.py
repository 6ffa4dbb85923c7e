"""ppl-fast name: from a trained model and a few labels to named joints."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ppl_fast._files import filling, readable
from ppl_fast.commands.footage import add_crop, add_labels, framing_for, open_labelled
from ppl_fast.commands.options import (
    add_compute,
    add_run,
    at_least,
    check_outputs,
    command_parser,
    own_folder,
    parse,
    trained_model,
)

if TYPE_CHECKING:
    from ppl_fast.models.link_model import LinkModel
    from ppl_fast.naming import Labelled, NamedJoints

DESCRIPTION = """Learn, from a few labelled images, what turns the keypoints of a run into named joints: a map from the
keypoints, and three networks on the run's trunk, blended joint by joint by their errors on images left out, which are
printed. Both are kept beside the run's model; estimate then writes the joints. DATA is a project of DeepLabCut or
Lightning Pose, or a folder of images or videos with labels beside them, as for evaluate."""
FEW = 10  # labelled images; with fewer, errors on images left out say little
FOLDER = "labeled-data"
WORTH_PROCESSES = 500  # steps, of some 35 ms; a process begins in some seconds


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("name", DESCRIPTION, "RUN DATA [--suggest N --of IMAGES --out DIR] [options]")
    add_run(parser, anywhere=False)
    parser.add_argument("data", metavar="DATA", type=str, help="labelled images")
    add_labels(parser)
    add_crop(parser)
    parser.add_argument("--network", type=bool, default=True, help="fine-tune networks too; false: keypoints alone")
    parser.add_argument("--steps", type=int, default=1200, help="optimizer steps of each network")
    parser.add_argument("--seed", type=int, default=0, help="of the networks")
    parser.add_argument("--suggest", type=int, default=0, metavar="N", help="write N images worth labelling next")
    parser.add_argument("--of", type=str | None, default=None, metavar="IMAGES", help="folder to suggest from")
    parser.add_argument("--out", type=str | None, default=None, metavar="DIR", help="where to write them")
    add_compute(parser)
    options = parse(parser, arguments)
    at_least(options, steps=1, suggest=0)
    if options.suggest and not (options.of and options.out):
        raise ValueError("--suggest needs --of IMAGES, to choose from, and --out DIR, to write to")

    own_folder("name", options.run)

    from ppl_fast.naming import Schedule, name_joints, steps_of
    from ppl_fast.training.run import find_model, training_of

    model = _link_model(options)
    folder = find_model(options.run)
    for written in (str(folder), options.out):
        check_outputs(folder=written)
    labelled, notes = _labelled(options, model.config["image_size"])
    if training_of(options.run).get("labels"):
        notes.append("the run was trained with labels: where these are among them, errors are larger than they seem")
    for note in notes:
        print(f"note: {note}")
    named = _by_these(labelled, folder, model) if options.suggest else None
    if named is None:
        schedule = Schedule(steps=options.steps, seed=options.seed) if options.network else None
        steps = steps_of(len(labelled), schedule)
        with _bar(steps) as bar:
            named = name_joints(model, labelled, schedule, bar.update, _processes(model, steps))
        named.save(folder)
        told = f"wrote {folder / 'joints.safetensors'} and joints.json: estimate now gives these joints too"
    else:
        told = f"the joints in {folder} are by these labels, and stay; without --suggest they are named anew"
    print(table(named.report, labelled.cropped))
    print(told)
    if options.suggest:
        _suggest(model, named, options)
    return 0


def _by_these(labelled: Labelled, folder: Path, model: LinkModel) -> NamedJoints | None:
    """The joints that a run has, if they are by these labels and for these weights."""
    from ppl_fast.naming import load_joints

    try:
        named = load_joints(folder, model)
    except ValueError:
        return None
    return named if named is not None and named.report.get("labels") == labelled.digest else None


def _processes(model: LinkModel, steps: int) -> int:
    """On a CPU one a thread, unless there is less to do than to begin them."""
    import torch

    from ppl_fast.inference.posing import device_of

    return torch.get_num_threads() if device_of(model).type == "cpu" and steps >= WORTH_PROCESSES else 1


def _link_model(options: Any) -> LinkModel:
    from ppl_fast.models.link_model import LinkModel

    model = trained_model(options.run, options)
    if not isinstance(model, LinkModel):
        raise ValueError(f"name: {options.run} holds a {type(model).__name__}, which has no trunk to learn joints on")
    return model


def _labelled(options: Any, image_size: int) -> tuple[Labelled, list[str]]:
    from ppl_fast.naming import Labelled

    opened = open_labelled("name", options.data, image_size, options, framing_for(options))
    assert opened.labels is not None
    return Labelled.of(opened.dataset, opened.labels, "name", options.max_missing_share)


def _bar(steps: int) -> Any:
    from tqdm import tqdm

    from ppl_fast._console import between_bars, no_bar

    hidden = bool(no_bar()) or not steps
    return tqdm(total=steps, desc="networks", unit="step", disable=hidden, mininterval=between_bars())


def table(report: dict[str, Any], cropped: bool = False) -> str:
    """The errors on images left out, joint by joint, the mean pose's beside; of parts of images or of whole ones."""
    width = max(len(name) for name in (*report["joints"], "all joints")) + 2
    lines = [f"{'joint':<{width}}{'labels':>7}{'error':>9}{'+-':>8}{'mean pose':>11}{'network':>9}"]
    for name, each in report["joints"].items():
        numbers = "".join(
            f"{value:{size}.4f}" if value is not None else f"{'-':>{size}}"
            for value, size in ((each["error"], 9), (each["interval"], 8), (each["mean_pose"], 11))
        )
        lines.append(f"{name:<{width}}{each['labels']:>7}{numbers}{each['network']:>9.0%}")
    if report["error"] is not None:
        lines.append(f"{'all joints':<{width}}{'':>7}{report['error']:9.4f}{'':>8}{report['mean_pose']:11.4f}")
    lines.append(
        f"    mean distance on {report['images']} labelled images, each predicted without its fold"
        + (f" of whole clips, of which there are {report['clips']}" if report.get("clips") else "")
        + ", as a fraction of the image size, and half of its 95 % interval"
    )
    if report["images"] < FEW:
        lines.append(
            f"note: {report['images']} labelled images are few; from {FEW} on these errors begin to be worth it"
        )
    elif report["error"] is not None and report["error"] > 0.9 * report["mean_pose"]:
        lines.append("note: hardly better than the mean pose: label more images, or train the run for longer")
    elif report["error"] is not None and report["error"] > 0.9 * (report["placed_mean_pose"] or math.inf):
        small = "Where it is small in the frame, or turns, train with --crop moving and --crop-turn true; else"
        boxes = "See in the run's boxes.png whether the boxes hold the animal, and turn with it; then train"
        lines.append(
            f"note: hardly better than one pose put at the animal's place ({report['placed_mean_pose']:.4f}): they "
            f"tell where it is, not how it stands. {boxes if cropped else small} for longer, or label more images"
        )
    if report.get("folders") == 1:
        lines.append("note: all labels are of one clip, and errors on other ones may be several times as large")
    return "\n".join(lines)


def _suggest(model: LinkModel, named: NamedJoints, options: Any) -> None:
    """Write the images that are worth labelling next, as a DeepLabCut project keeps those to be labelled."""
    import numpy as np
    import torch

    from ppl_fast.data import open_set
    from ppl_fast.inference import predict
    from ppl_fast.inference.posing import device_of
    from ppl_fast.naming.suggest import suggested

    limits = {"max_bad_share": options.max_bad_share, "max_pixels": options.max_pixels}
    images = open_set(options.of, model.config["image_size"], framing=framing_for(options), **limits).dataset
    keypoints = predict(model, images, batch_size=options.batch_size, workers=options.workers)
    device = device_of(model)
    unsure = np.concatenate(
        [
            named.disagreement(torch.stack([images[i] for i in rows]).to(device), keypoints[rows])
            for rows in np.array_split(np.arange(len(images)), -(-len(images) // options.batch_size))
        ]
    )
    rows = suggested(keypoints, unsure, named.labelled, options.suggest)
    folder = Path(options.out) / FOLDER
    videos = sorted({name.parent for name in map(PurePosixPath, images.paths) if not name.suffix})  # walk.mp4/000012
    stems = [video.stem for video in videos]
    of = {video: video.stem if stems.count(video.stem) == 1 else "_".join(video.parts) for video in videos}
    with filling(folder) as filled:
        for rank, row in enumerate(rows):
            name = PurePosixPath(images.paths[row])
            clip = filled / of.get(name.parent, Path(options.of).resolve().name)
            clip.mkdir(exist_ok=True)
            images.original(int(row)).save(clip / f"{rank:03d}_{name.with_suffix('.png').name}")
        clips = sorted(path.name for path in filled.iterdir())
    where = folder / clips[0] if len(clips) == 1 else folder
    print(readable(f"wrote {len(rows)} images worth labelling next to {where}, the most useful first"))
