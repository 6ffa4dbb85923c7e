"""For those who come from the published PPL and AutoLink code: their checkpoints, and PPL's class.

Checkpoints become our models by `ppl_fast.PPL.from_published` and `ppl_fast.AutoLink.from_published`, which call
`load`, and go back by `to_published`. `PosePriorLearner` takes the place of the published class in its own scripts.
"""

from ppl_fast.published.checkpoints import load, state_dict
from ppl_fast.published.learner import PosePriorLearner

__all__ = ["PosePriorLearner", "load", "state_dict"]
