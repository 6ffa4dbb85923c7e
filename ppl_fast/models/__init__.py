"""The models: ordinary nn.Modules on the operators of `ppl_fast.ops`."""

import os

from ppl_fast.models import checkpoint, registry
from ppl_fast.models.autolink import AutoLink
from ppl_fast.models.base import KeypointModel
from ppl_fast.models.config import AutoLinkConfig, PPLConfig
from ppl_fast.models.link_model import LinkModel
from ppl_fast.models.output import AutoLinkOutput, PPLOutput, Prior
from ppl_fast.models.ppl import PPL
from ppl_fast.models.registry import MODELS

MODELS.update((model.architecture, model) for model in (PPL, AutoLink))

__all__ = ["MODELS", "PPL", "AutoLink", "AutoLinkConfig", "AutoLinkOutput", "PPLConfig", "PPLOutput", "Prior"]
__all__ += ["KeypointModel", "LinkModel", "load_pretrained"]


def load_pretrained(directory: str | os.PathLike) -> KeypointModel:
    """The model that `save_pretrained` wrote into a directory, of whichever class.

    Raises: FileNotFoundError; ValueError naming the file and what is wrong with it.
    """
    name = checkpoint.read_config(directory)[0]
    found = registry.find(name)
    if found is None:
        path = os.path.join(directory, checkpoint.CONFIG)
        raise ValueError(f"{path}: architecture must be one of {', '.join(MODELS)}, got {name!r}")
    return found.from_pretrained(directory)
