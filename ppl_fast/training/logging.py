"""What a run leaves to read: log.jsonl, what a tracker has of it, and the prior as it evolved."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ppl_fast._documents import parse_json
from ppl_fast._files import write_text
from ppl_fast.models import Prior
from ppl_fast.training.trackers import end_tracker, flat

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

LONGEST_RECORD = 1 << 26  # bytes of a line
PRIOR_SPACING = 1.2  # ratio of the steps between which the prior is kept


def read_records(path: Path) -> list[dict[str, Any]]:
    """Records of a JSONL file, in order; what is none, such as a line cut short by a crash, is left out."""
    records = []
    for line in _lines(path) if path.is_file() else ():
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
    return records


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; those longer than a record ever is are left out, a piece at a time."""
    with open(path, "rb") as file:
        whole = True
        while line := file.readline(LONGEST_RECORD):
            ends = line.endswith(b"\n") or len(line) < LONGEST_RECORD
            if whole and ends:
                yield line
            whole = ends


class RunLog:
    """Appends records to RUN/log.jsonl and RUN/prior.jsonl, and gives their numbers to a tracker.

    Args:
        run: the run's directory.
        step: finished steps; records beyond it, of a stretch that the resumed run repeats, are dropped.
        tracker: which has begun, and is ended by `close`; None for none.
    """

    def __init__(self, run: Path, step: int, tracker: "GeneralTracker | None" = None):
        self._files = {name: _reopen(run / f"{name}.jsonl", step) for name in ("log", "prior")}
        self.records = read_records(run / "log.jsonl")
        self.priors = read_records(run / "prior.jsonl")
        self._tracker = tracker

    def scalars(self, record: dict[str, Any]) -> None:
        """Write one record, and give its numbers to the tracker."""
        self.records.append(record)
        self._append("log", record)
        if self._tracker is not None:
            self._tracker.log(flat(record), step=record["step"])

    def prior_due(self, step: int) -> bool:
        """Whether the prior of this step is worth keeping: densely early on, where it moves fast."""
        return not self.priors or step >= PRIOR_SPACING * self.priors[-1]["step"]

    def prior(self, step: int, prior: Prior) -> None:
        """Write the keypoint prior (N, 2), (x, y) in [-1, 1], and the connectivity prior (N, N) of this step."""
        record = {
            "step": step,
            "keypoints": prior.keypoints.detach().cpu().tolist(),
            "connectivity": prior.connectivity.detach().cpu().tolist(),
        }
        self.priors.append(record)
        self._append("prior", record)

    def restore(self, run: Path) -> None:
        """Write all records anew to a run's directory that has lost them; those to come follow there."""
        for name, records in (("log", self.records), ("prior", self.priors)):
            self._files[name].close()
            write_text(run / f"{name}.jsonl", "".join(json.dumps(record) + "\n" for record in records))
            self._files[name] = _appending(run / f"{name}.jsonl")

    def close(self) -> None:
        """Close every file; records are on disk already, so that a full disk is no error any more."""
        end_tracker(self._tracker)
        with contextlib.suppress(OSError):
            for file in self._files.values():
                file.close()

    def _append(self, name: str, record: dict[str, Any]) -> None:
        self._files[name].write(json.dumps(record) + "\n")
        self._files[name].flush()


def _reopen(path: Path, step: int) -> TextIO:
    """Drop the records beyond `step`, atomically, and open the file for appending."""
    kept = [record for record in read_records(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
    return _appending(path)


def _appending(path: Path) -> TextIO:
    return open(path, "a", encoding="utf-8")
