"""Training: from a folder of images to a run directory. Needs the `train` extra."""

from .config import TrainConfig
from .presets import PRESETS
from .run import load_model
from .signals import TrainingInterrupted

__all__ = ["PRESETS", "TrainConfig", "TrainingInterrupted", "load_model", "train"]


def __getattr__(name: str):
    """Import the loop on first use, so that configurations are read without accelerate."""
    if name != "train":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .trainer import train
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "tqdm"):
            raise
        raise ImportError(
            f"ppl_fast.training.train needs {error.name}, which is not installed: pip install 'ppl_fast[train]'"
        ) from error
    return train
