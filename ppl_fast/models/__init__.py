"""The models: ordinary nn.Modules on the operators of `ppl_fast.ops`."""

import os

from ppl_fast.models import checkpoint
from ppl_fast.models.autolink import AutoLink
from ppl_fast.models.base import LinkModel
from ppl_fast.models.config import AutoLinkConfig, PPLConfig
from ppl_fast.models.output import AutoLinkOutput, PPLOutput, Prior
from ppl_fast.models.ppl import PPL

MODELS: dict[str, type[LinkModel]] = {"ppl": PPL, "autolink": AutoLink}  # by the name that `ppl-fast train` knows

__all__ = ["MODELS", "PPL", "AutoLink", "AutoLinkConfig", "AutoLinkOutput", "PPLConfig", "PPLOutput", "Prior"]
__all__ += ["LinkModel", "load_pretrained"]


def load_pretrained(directory: str | os.PathLike) -> LinkModel:
    """The model that `save_pretrained` wrote into a directory, of whichever class.

    Raises: FileNotFoundError; ValueError naming the file and what is wrong with it.
    """
    names = {model.__name__: model for model in MODELS.values()}
    return names[checkpoint.read_architecture(directory, names)].from_pretrained(directory)
