"""Training: from a folder of images to a run directory. Needs the `train` extra."""

from ppl_fast._extras import on_first_use

from .config import TrainConfig
from .presets import PRESETS
from .run import load_model
from .signals import TrainingInterrupted

__all__ = ["PRESETS", "TrainConfig", "TrainingInterrupted", "load_model", "train"]

__getattr__ = on_first_use(__name__, {"train": "trainer"}, "train")  # configurations are read without accelerate
