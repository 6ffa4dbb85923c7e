"""The models: ordinary nn.Modules on the operators of `ppl_fast.ops`."""

from ppl_fast.models.config import PPLConfig
from ppl_fast.models.ppl import PPL, PPLOutput, Prior

__all__ = ["PPL", "PPLConfig", "PPLOutput", "Prior"]
