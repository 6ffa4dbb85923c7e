"""Named joints from few labels: what turns a trained model's keypoints into the joints that a person has named."""

from ppl_fast.naming.fitting import Labelled, name_joints, steps_of
from ppl_fast.naming.named import NamedJoints, has_joints, load_joints
from ppl_fast.naming.network import JointNetwork, JointNetworks, Schedule

__all__ = [
    "JointNetwork",
    "JointNetworks",
    "Labelled",
    "NamedJoints",
    "Schedule",
    "has_joints",
    "load_joints",
    "name_joints",
    "steps_of",
]
