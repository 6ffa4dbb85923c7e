"""An animal that is small in the frame: what crops of it, turned, and its pixels are worth.

`python benchmarks/arena.py --out FOLDER`: draws a mouse that runs about an arena, seen from above, as a project of
DeepLabCut: two videos of 640 x 480 pixels, of which 15 frames each are labelled, by a hand that errs by a pixel. Then,
for each way to see it, `ppl-fast train`, `name` and `estimate` as a laboratory calls them, and the distance of named
joints to where they were drawn in the frames that nobody labelled: in pixels of the frame, by the map from keypoints
alone, and with the networks.

A way's cell is kept in FOLDER, so that a call goes on where another stopped; all are written to FOLDER/arena.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from ppl_fast._files import new_folder, write_text
from ppl_fast.cli import main as ppl_fast

WIDTH, HEIGHT, RATE = 640, 480, 25
VIDEOS, FRAMES, LABELLED = 2, 900, 15
BODY = 90.0  # pixels from the nose to the base of the tail, or so
JOINTS = (
    "nose", "left ear", "right ear", "neck", "spine", "tail base", "tail middle", "tail tip",
    "left fore paw", "right fore paw", "left hind paw", "right hind paw",
)  # fmt: skip
COATS = ((70, 60, 52), (120, 112, 105))  # of the mouse in each video
WAYS = {  # options of `ppl-fast train`
    "whole frames": ["--masks", "auto"],
    "crops, what moves": ["--crop", "moving", "--masks", "auto"],
    "turned crops": ["--crop", "moving", "--crop-turn", "true", "--masks", "null"],
    "turned crops, what moves": ["--crop", "moving", "--crop-turn", "true", "--masks", "auto"],
}


def main() -> None:
    """Draw what is missing, measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of project, runs and cells")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--steps", type=int, default=4000, help="of each run")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    project, truth = options.out / "arena", options.out / "truth.npz"
    if not project.exists():
        with new_folder(project) as folder:
            np.savez(truth, **draw_project(folder))
    for way in options.ways:
        path = options.out / f"{way.replace(', ', '-').replace(' ', '-')}.json"
        if not path.is_file():
            print(f"== {way}", flush=True)
            write_text(path, json.dumps(cell(way, project, truth, path.with_suffix(""), options), indent=2) + "\n")
    cells = [json.loads(path.read_text()) for path in sorted(options.out.glob("*.json")) if path.stem != "arena"]
    cells.sort(key=lambda each: list(WAYS).index(each["way"]))
    write_text(
        options.out / "arena.json", json.dumps({"frames": f"{WIDTH} x {HEIGHT}", "cells": cells}, indent=2) + "\n"
    )
    print(
        f"{'errors in pixels':<26}" + "".join(f"{name:>16}" for name in ("map", "map, worst", "named", "named, worst"))
    )
    for each in cells:
        shown = [f"{each[by][what]:16.1f}" for by in ("map", "named") for what in ("mean", "worst joint")]
        print(f"{each['way']:<26}" + "".join(shown))


def cell(way: str, project: Path, truth: Path, run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train, name and estimate: the errors by joint, and seconds of a core."""
    begun = time.process_time()
    frames = ["--frames", "500", "--frames-by", "difference", "--steps", str(options.steps), "--tracker", "none"]
    again = ["--resume"] if (run / "config.yaml").is_file() else []
    call("train", project, "--preset", "small", "--out", run, *frames, *WAYS[way], *again, "--device", "cpu")
    found: dict[str, Any] = {"way": way, "steps": options.steps, "seconds": {"train": time.process_time() - begun}}
    for by, network in (("map", "false"), ("named", "true")):
        begun = time.process_time()
        call("name", run, project, "--network", network)
        found["seconds"][by] = time.process_time() - begun
        call("estimate", run, project / "videos", "--out", run / "poses.csv")
        found[by] = errors(run / "poses.csv", project, truth)
    return found


def call(*arguments: object) -> None:
    """A command; an error ends the program."""
    if code := ppl_fast([str(argument) for argument in arguments]):
        raise SystemExit(code)


def errors(poses: Path, project: Path, truth: Path) -> dict[str, Any]:
    """Mean distances to the truth in pixels, in frames that have a pose and are not labelled."""
    with np.load(truth) as drawn:
        true = {f"{name}.mp4": np.array(drawn[name]) for name in drawn.files}
    seen = {f"{path.parent.name}.mp4/{int(path.stem[3:])}" for path in project.glob("labeled-data/*/*.png")}
    missing, distances = 0, []
    with open(poses, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values = [row[f"{joint}_{axis}"] for joint in JOINTS for axis in "xy"]
            if f"{row['file']}/{row['frame']}" in seen:
                continue
            if "" in values:
                missing += 1
                continue
            found = np.array(values, float).reshape(-1, 2)
            distances.append(np.linalg.norm(found - true[row["file"]][int(row["frame"])], axis=1))
    by_joint = np.mean(distances, axis=0)
    return {
        "mean": float(by_joint.mean()),
        "worst joint": float(by_joint.max()),
        "by joint": dict(zip(JOINTS, by_joint.tolist(), strict=True)),
        "frames": len(distances),
        "without a pose": missing,
    }


def draw_project(folder: Path) -> dict[str, np.ndarray]:
    """Videos and labelled frames; where the joints are, (frames, joints, 2) in pixels, of each video."""
    rng, truth = np.random.default_rng(0), {}
    (folder / "videos").mkdir()
    for number in range(VIDEOS):
        name, ground = f"mouse{number}", arena(rng)
        points = truth[name] = np.array([joints(*state) for state in walk(rng)])
        labelled = {int(each) for each in rng.choice(FRAMES, LABELLED, replace=False)}
        stills = folder / "labeled-data" / name
        stills.mkdir(parents=True)
        rows = []
        with av.open(str(folder / "videos" / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=RATE, options={"crf": "23"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for place, pose in enumerate(points):
                pixels = drawn(rng, ground, pose, COATS[number])
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = place, Fraction(1, RATE)
                container.mux(stream.encode(frame))
                if place in labelled:
                    Image.fromarray(pixels).save(stills / f"img{place:04d}.png")
                    values = np.round(pose + rng.normal(size=pose.shape), 2).ravel().tolist()
                    rows.append([f"labeled-data/{name}/img{place:04d}.png", *values])
            container.mux(stream.encode(None))
        with open(stills / "CollectedData_me.csv", "w", newline="", encoding="utf-8") as file:
            heads = ["scorer", *["me"] * 2 * len(JOINTS)], ["bodyparts", *np.repeat(JOINTS, 2)]
            csv.writer(file).writerows([*heads, ["coords", *["x", "y"] * len(JOINTS)], *rows])
    return truth


def arena(rng: np.random.Generator) -> np.ndarray:
    """An oval floor of bedding, unevenly lit, and darkness around it: (H, W, 3) in grey levels."""
    floor = 150 + sum(weight * bumps(rng, size) for weight, size in ((10, 40), (8, 8), (6, 2)))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    floor *= 1.1 - 0.35 * np.hypot((x - 260) / 400, (y - 200) / 400)
    floor[np.hypot((x - WIDTH / 2) / 300, (y - HEIGHT / 2) / 225) > 1] *= 0.35
    return (floor[..., None] * (1.0, 0.92, 0.8)).clip(0, 255)


def bumps(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth noise (H, W) of about unit spread, a bump every `size` pixels."""
    grid = rng.standard_normal((HEIGHT // size + 2, WIDTH // size + 2)).astype(np.float32)
    large = Image.fromarray(grid).resize((WIDTH + size, HEIGHT + size), Image.Resampling.BICUBIC)
    return np.asarray(large)[:HEIGHT, :WIDTH]


def walk(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Arguments of `joints` for each frame: it runs and rests, turns and looks about, and keeps off the wall."""
    place, heading, speed, turn, bend, gait, runs = (
        np.array([WIDTH / 2, HEIGHT / 2]),
        rng.uniform(0, 6.28),
        0,
        0,
        0,
        0,
        1,
    )
    states = []
    for time_ in range(FRAMES):
        runs ^= rng.random() < 0.02
        speed += 0.2 * (runs * rng.uniform(3, 6) - speed)
        wanted, inwards = 0.02 * rng.normal(), (WIDTH / 2, HEIGHT / 2) - place
        if np.hypot(inwards[0] / 190, inwards[1] / 110) > 0.8:
            off = (np.arctan2(inwards[1], inwards[0]) - heading + np.pi) % (2 * np.pi) - np.pi
            wanted += 0.12 * np.clip(off, -1, 1)
        turn += 0.15 * (wanted - turn) + rng.normal() * (0.01 if runs else 0.003)
        heading += turn * (0.3 + speed / 6)
        place = place + speed * np.array([np.cos(heading), np.sin(heading)])
        bend += 0.2 * (7 * turn - bend)
        gait += 0.12 * speed
        look = 0.8 * bend + (0.17 if runs else 0.35) * np.sin(0.13 * time_ + np.sin(0.05 * time_) * 3)
        states.append((place, heading, bend, look, gait, 0.5 * np.sin(0.5 * gait + 0.02 * time_)))
    return states


def joints(spine: np.ndarray, heading: float, bend: float, look: float, gait: float, wag: float) -> np.ndarray:
    """(joints, 2) in pixels: spine, heading of the body, how far body and head are bent, step, and wag of the tail."""

    def towards(angle: float) -> np.ndarray:
        return BODY * np.array([np.cos(angle), np.sin(angle)])

    ahead, beside, to_head, back = (
        towards(heading),
        towards(heading + np.pi / 2),
        heading + bend + look,
        heading + np.pi - bend,
    )
    neck, tail = spine + 0.28 * towards(heading + bend / 2), spine - 0.34 * towards(heading - bend / 2)
    skull, ear = neck + 0.13 * towards(to_head), 0.1 * towards(to_head + np.pi / 2)
    middle = tail + 0.4 * towards(back + 0.6 * wag)
    paws = [
        base + along * ahead + side * beside + 0.09 * np.sin(gait + phase) * ahead
        for base, along, side, phase in (
            (neck, -0.06, -0.15, 0), (neck, -0.06, 0.15, np.pi), (tail, 0.12, -0.2, np.pi), (tail, 0.12, 0.2, 0)
        )
    ]  # fmt: skip
    nose, tip = neck + 0.33 * towards(to_head), middle + 0.4 * towards(back + 1.6 * wag)
    return np.array([nose, skull - ear, skull + ear, neck, spine, tail, middle, tip, *paws])


def drawn(rng: np.random.Generator, ground: np.ndarray, pose: np.ndarray, coat: tuple[int, ...]) -> np.ndarray:
    """A frame, uint8 (H, W, 3): the mouse, its soft shadow, a lamp that flickers, and a noisy camera."""
    large = Image.new("RGBA", (2 * WIDTH, 2 * HEIGHT))
    brush, (nose, left, right, neck, spine, tail, middle, tip, *paws) = ImageDraw.Draw(large), 2 * pose

    def tube(points: list[np.ndarray], radii: tuple[float, ...], colour: tuple[int, ...]) -> None:
        steps = np.linspace(0, len(points) - 1, 14 * len(points))
        for x, y, radius in zip(
            *(np.interp(steps, range(len(points)), values) for values in (*np.transpose(points), radii)), strict=True
        ):
            brush.ellipse([x - 2 * radius, y - 2 * radius, x + 2 * radius, y + 2 * radius], fill=colour)

    skin, stripe = (170, 130, 115), tuple(int(1.25 * level) for level in coat)
    tube([tail, middle, tip], (4, 2.8, 1.5), skin)
    for paw in paws:
        tube([paw], (4.5,), skin)
    tube([tail, (tail + spine) / 2, spine, (spine + neck) / 2, neck], (12, 18, 17, 14, 11), coat)
    tube([neck, (neck + nose) / 2, nose], (11, 9, 3), coat)
    tube([0.7 * spine + 0.3 * tail, spine, neck], (8, 8, 5), stripe)
    tube([left], (5.5,), skin)
    tube([right], (5.5,), skin)
    mouse = large.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    cover = np.asarray(mouse)[..., 3:] / 255
    soft = np.asarray(mouse.getchannel("A").filter(ImageFilter.GaussianBlur(6)))[..., None] / 255
    pixels = ground * (1 - 0.35 * np.roll(soft, (6, 8), (0, 1))) * (1 - cover) + np.asarray(mouse)[..., :3] * cover
    pixels = pixels * (1 + 0.01 * rng.normal()) + 4 * rng.standard_normal(pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
