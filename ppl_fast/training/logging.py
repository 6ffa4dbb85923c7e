"""What a run leaves to read: log.jsonl, TensorBoard events, and the prior as it evolved."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ppl_fast._documents import parse_json
from ppl_fast._extras import needing
from ppl_fast._files import readable, write_text
from ppl_fast.models import Prior

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

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
    """Appends records to RUN/log.jsonl and RUN/prior.jsonl, and scalars to RUN/tensorboard.

    Args:
        run: the run's directory.
        step: finished steps; records beyond it, of a stretch that the resumed run repeats, are dropped.
        tensorboard: write events too, where `tensorboard_takes` the directory.

    Raises:
        ImportError: TensorBoard is asked for and not installed.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool):
        self._files = {name: _reopen(run / f"{name}.jsonl", step) for name in ("log", "prior")}
        self.records = read_records(run / "log.jsonl")
        self.priors = read_records(run / "prior.jsonl")
        self._writer = _summary_writer(run / "tensorboard", step) if tensorboard and tensorboard_takes(run) else None

    def scalars(self, record: dict[str, Any]) -> None:
        """Write one record; every number but the step becomes a TensorBoard scalar, nested ones as outer/inner."""
        self.records.append(record)
        self._append("log", record)
        if self._writer is not None:
            for name, value in record.items():
                group = {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
                for tag, scalar in group.items():
                    if tag != "step":
                        self._writer.add_scalar(tag, scalar, record["step"])

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
        with contextlib.suppress(OSError):
            for file in self._files.values():
                file.close()
            if self._writer is not None:
                self._writer.close()

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


def tensorboard_takes(run: Path) -> bool:
    """Whether TensorBoard can write to this directory: its name must be UTF-8."""
    return readable(str(run)) == str(run)


def _summary_writer(directory: Path, step: int) -> "SummaryWriter":
    with needing("training with tensorboard=True needs", "train", otherwise="set tensorboard to false"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(directory), purge_step=step + 1 if step else None)
