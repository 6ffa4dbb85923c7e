"""The models: ordinary nn.Modules on the operators of `ppl_fast.ops`."""

import os

from ppl_fast.models.autolink import AutoLink
from ppl_fast.models.base import KeypointModel
from ppl_fast.models.extended import ExtendedAutoLink, ExtendedPPL
from ppl_fast.models.link_model import LinkModel
from ppl_fast.models.optimized import optimize
from ppl_fast.models.output import AutoLinkOutput, PPLOutput, Prior
from ppl_fast.models.ppl import PPL
from ppl_fast.models.registry import MODELS
from ppl_fast.options import AutoLinkConfig, ExtendedAutoLinkConfig, ExtendedPPLConfig, PPLConfig

for _model in (PPL, AutoLink, ExtendedPPL, ExtendedAutoLink):
    MODELS[_model.architecture] = _model

__all__ = ["MODELS", "PPL", "AutoLink", "AutoLinkConfig", "AutoLinkOutput", "PPLConfig", "PPLOutput", "Prior"]
__all__ += ["ExtendedAutoLink", "ExtendedAutoLinkConfig", "ExtendedPPL", "ExtendedPPLConfig"]
__all__ += ["KeypointModel", "LinkModel", "load_pretrained", "optimize"]


def load_pretrained(directory: str | os.PathLike[str]) -> KeypointModel:
    """The model that `save_pretrained` wrote into a directory, or org/name on the hub, of whichever class.

    Raises:
        FileNotFoundError: there are no such files.
        ValueError: a file is broken; the sentence names it.
    """
    return KeypointModel.from_pretrained(directory)
