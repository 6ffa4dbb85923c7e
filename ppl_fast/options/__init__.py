"""What can be chosen: the options of every architecture. Imports no torch, so that a command tells them at once."""

from ppl_fast.options.config import AutoLinkConfig, KeypointConfig, LinkModelConfig, PPLConfig
from ppl_fast.options.extended import ExtendedAutoLinkConfig, ExtendedPPLConfig
from ppl_fast.options.registry import CONFIGS

CONFIGS["ppl"] = PPLConfig
CONFIGS["autolink"] = AutoLinkConfig
CONFIGS["extended-ppl"] = ExtendedPPLConfig
CONFIGS["extended-autolink"] = ExtendedAutoLinkConfig

__all__ = ["CONFIGS", "AutoLinkConfig", "ExtendedAutoLinkConfig", "ExtendedPPLConfig", "KeypointConfig"]
__all__ += ["LinkModelConfig", "PPLConfig"]
