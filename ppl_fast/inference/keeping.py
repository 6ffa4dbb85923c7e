"""Poses kept in a folder as they are found, so that an estimation that was interrupted goes on where it stopped.

`job.json` says what the poses are of: the model's weights, the options that they depend on, and name, size and date of
every file. Poses of anything else are refused, not mixed. Beside it lie the poses themselves, `PART-START.npz`: some
batches of one source each, from its image START on, written whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

import ppl_fast
from ppl_fast._digest import digest
from ppl_fast._documents import read_json
from ppl_fast._files import locked, replacing, write_text
from ppl_fast.inference.frames import Frames
from ppl_fast.inference.media import Media
from ppl_fast.inference.poses import COLLECTED, Poses, collect
from ppl_fast.inference.posing import Posing
from ppl_fast.inference.sources import Source

JOB = "job.json"
SECONDS = 30.0  # of work that an interruption may cost
LARGEST = 4096  # poses that wait for the next file
LISTS = ("names", "frames", "times")  # of `Poses`, that are no arrays
MEANINGS = {"model": "another model", "sources": "other files, or files that have changed since"}


@dataclass(frozen=True)
class Piece:
    """What one file holds.

    Attributes:
        poses: as they were found, without images; None where the last images did not decode.
        end: images of the source that are done with, unusable ones counted.
        done: whether those are all.
        skipped: (name, reason) of the files that were left out so far.
    """

    poses: Poses | None
    end: int
    done: bool
    skipped: list[tuple[str, str]]


class Kept:
    """A folder of poses of one job.

    Args:
        folder: is made where it is missing.
        job: what the poses depend on, by name; see `job_of`.

    Raises:
        ValueError: the folder has poses of another job; or it holds something else.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, job: Mapping[str, str]):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / JOB).exists():
            begun = read_json(folder / JOB)
            begun = begun if isinstance(begun, dict) else {}
            differing = [name for name in {**job, **begun} if begun.get(name) != job.get(name)]
            if differing:
                what = " and ".join(MEANINGS.get(n, f"{n} {begun.get(n)}, now {job.get(n)}") for n in differing)
                raise ValueError(f"{folder} has poses by {what}; remove the folder to start anew")
        elif any(folder.iterdir()):
            raise ValueError(f"{folder} must be missing, empty or hold poses that were kept before; it has no {JOB}")
        else:
            write_text(folder / JOB, json.dumps(dict(job), indent=1))

    def pieces(self, part: int, source: Source) -> Iterator[Piece]:
        """What is kept of a source, in order."""
        end = 0
        for path in sorted(self.folder.glob(f"{part:06d}-*.npz")):
            start = int(path.stem.partition("-")[2])
            if start != end:
                raise ValueError(f"{path} should begin at image {end} of {source.name}; remove {self.folder}")
            piece = _read(path, source)
            end = piece.end
            yield piece

    def noting(self, part: int, source: Source, start: int, batches: Iterator[Poses]) -> Generator[Poses, None, None]:
        """The batches of a source from its image `start` on, which are kept as they pass, also when that ends early.

        Raises:
            BlockingIOError: another process keeps poses there.
        """
        with locked(self.folder / "lock", f"another process keeps poses in {self.folder}"):
            yield from self._noting(part, source, start, batches)

    def _noting(self, part: int, source: Source, start: int, batches: Iterator[Poses]) -> Iterator[Poses]:
        waiting: list[Poses] = []
        count, end, done, last = 0, start, False, time.monotonic()
        try:
            for poses in batches:
                waiting.append(replace(poses, picture=None))  # which holds the whole images of its batch
                count, end = count + len(poses), poses.end
                if count >= LARGEST or time.monotonic() - last >= SECONDS:
                    self._write(part, start, Piece(collect(waiting), end, False, _lost(source)), waiting)
                    waiting, count, start, last = [], 0, end, time.monotonic()
                yield poses
            done = True
        finally:
            if waiting or done:
                poses_left = collect(waiting) if waiting else None
                self._write(part, start, Piece(poses_left, end, done, _lost(source)), waiting)

    def _write(self, part: int, start: int, piece: Piece, batches: list[Poses]) -> None:
        about: dict[str, Any] = {"end": piece.end, "done": piece.done, "skipped": piece.skipped}
        arrays: dict[str, Any] = {}
        if piece.poses is not None:
            about["lists"] = {name: getattr(piece.poses, name) for name in LISTS}
            about["lists"]["durations"] = [each for poses in batches for each in poses.durations]
            arrays = {name: getattr(piece.poses, name) for name in COLLECTED if name not in LISTS}
        with replacing(self.folder / f"{part:06d}-{start:012d}.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, about=json.dumps(about), **{name: each for name, each in arrays.items() if each is not None})


def _read(path: Path, source: Source) -> Piece:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")))
        poses = None
        if "lists" in about:
            video = source.video if isinstance(source, Frames) else None
            poses = Poses(**arrays, **about["lists"], video=video, end=about["end"])
        return Piece(poses, about["end"], about["done"], [(name, reason) for name, reason in about["skipped"]])
    except (OSError, ValueError, TypeError, LookupError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} holds no poses that were kept ({error}); remove it to start anew") from error


def _lost(source: Source) -> list[tuple[str, str]]:
    return [] if source.losses is None else [*source.losses.skipped]


def job_of(posing: Posing, media: Media, batch_size: int, **options: Any) -> dict[str, str]:
    """What poses depend on, by name, as text: the model's weights, files by name, size and date, options.

    The device is none of it: poses found on another one differ by rounding.

    Raises:
        TypeError: the source is no path; what has no files cannot be known again.
    """
    files = [each for part in media.parts for each in part.stamps()]
    model = posing.model
    about = {
        "iterations": posing.iterations,
        "batch size": batch_size,
        "confidence": posing.confidence if isinstance(posing.confidence, bool) else digest(posing.confidence),
        "joints": None if posing.joints is None else digest(posing.joints),
        "version": ppl_fast.__version__,
        **options,
    }
    weights = digest([type(model).__name__, model.config, model.state_dict()])
    return {"model": weights, "sources": digest(files)} | {name: str(value) for name, value in about.items()}
