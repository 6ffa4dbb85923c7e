"""Training: from a folder of images to a run directory. Needs the `train` extra."""

from typing import TYPE_CHECKING

from ppl_fast._extras import on_first_use
from ppl_fast.training.config import TrainConfig
from ppl_fast.training.presets import PRESETS
from ppl_fast.training.signals import TrainingInterrupted

__all__ = ["PRESETS", "TrainConfig", "TrainingInterrupted", "load_framing", "load_model", "train"]

_HOMES = {"load_framing": "run", "load_model": "run", "train": "entry"}

if TYPE_CHECKING:
    from ppl_fast.training.entry import train
    from ppl_fast.training.run import load_framing, load_model
else:
    __getattr__ = on_first_use(__name__, _HOMES, "train")  # configurations are read without torch and accelerate
