"""A front-facing person: joints, poses, outfits and how they are drawn."""

from dataclasses import dataclass

import numpy as np

from ppl_fast.data.backgrounds import meadow, room
from ppl_fast.data.drawing import Canvas, Paint, rgb

NAMES = [
    "head", "neck", "pelvis",
    "right_shoulder", "right_elbow", "right_hand", "left_shoulder", "left_elbow", "left_hand",
    "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot",
]  # fmt: skip
SKELETON = [
    (0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (1, 6), (6, 7), (7, 8),
    (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14),
]  # fmt: skip

CENTRE = (0.5, 0.55)
FEET = [11, 14]
SCENES = [room, meadow]

_TORSO, _HEAD, _SHOULDER, _HIP = 0.24, 0.105, 0.086, 0.052
_UPPER_ARM, _FOREARM, _THIGH, _SHIN = 0.145, 0.14, 0.178, 0.172

_SKIN = ["f2d3bc", "e3b08d", "c98d63", "a06a42", "6f4729", "4d2f1c"]
_HAIR = ["1f1a17", "3b2719", "6a4326", "a8692f", "d7b26d", "8c8782", "7c2f1d"]
_CLOTH = [
    "c8453b", "e08e36", "e9c64a", "5b9a58", "2f7f79", "3f79b5", "2b4470", "74529a",
    "c76c93", "f1ece1", "2c2f36", "8d6b4f", "9fbf9a", "93b7d4",
]  # fmt: skip
_TROUSERS = ["2b3a55", "3d4148", "6d5a46", "8b8f98", "4c6a88", "26282d", "b29a72", "5d3b47"]
_PATTERNS = ["plain", "hoops", "stripes", "checks", "dots"]


@dataclass(frozen=True)
class Outfit:
    """Colours and cut: sleeves and legs end at a share of the arm (2 = hand) and leg (2 = foot)."""

    skin: Paint
    hair: Paint
    top: Paint
    bottom: Paint
    shoes: Paint
    sleeves: float
    legs: float
    skirt: bool
    long_hair: bool


def outfit(rng: np.random.Generator) -> Outfit:
    """Draw an outfit."""
    first, second = rng.choice(_CLOTH, 2, replace=False)
    pattern, period = rng.choice(_PATTERNS), rng.uniform(0.045, 0.075)
    skirt = bool(rng.random() < 0.25)
    skin = rgb(rng.choice(_SKIN))
    hair = [colour for colour in map(rgb, _HAIR) if abs(colour.mean() - skin.mean()) > 0.12]  # the face must show
    return Outfit(
        skin=Paint(skin),
        hair=Paint(hair[rng.integers(len(hair))]),
        top=Paint(rgb(first), rgb(second), str(pattern), period),
        bottom=Paint(rgb(rng.choice(_CLOTH if skirt else _TROUSERS))),
        shoes=Paint(rgb(rng.choice(["26282d", "f1ece1", "8b3a2f", "5a4632"]))),
        sleeves=float(rng.choice([0.6, 1.0, 1.9])),
        legs=0.0 if skirt else float(rng.choice([0.75, 1.85, 1.85])),
        skirt=skirt,
        long_hair=bool(rng.random() < 0.4),
    )


def pose(rng: np.random.Generator) -> np.ndarray:
    """Draw a pose: (15, 2) joints around the pelvis, in units of the image side.

    Every limb has an angle with limits and is foreshortened a little, as if it also left the image plane.
    """
    lean = rng.normal(0, 0.13)
    joints = np.zeros((15, 2))
    joints[1] = joints[2] + _TORSO * rng.uniform(0.94, 1) * _down(np.pi + lean)
    joints[0] = joints[1] + _HEAD * _down(np.pi + lean + rng.normal(0, 0.22))
    across = _down(np.pi / 2 + lean)  # to the image's right, the person's left
    for side, shoulder, hip in ((-1, 3, 9), (1, 6, 12)):
        joints[shoulder] = joints[1] + side * _SHOULDER * across + 0.018 * _down(lean)
        joints[hip] = joints[2] + side * _HIP * across
        raised = rng.uniform(0, 2.85)
        bent = rng.uniform(-0.3, 2.2) if rng.random() < 0.7 else rng.uniform(-1.9, 0)
        arm = ((_UPPER_ARM, raised), (_FOREARM, raised + bent))
        spread = rng.triangular(-0.25, 0.15, 1.25)
        leg = ((_THIGH, spread), (_SHIN, spread + rng.uniform(-1.1, 0.35) * min(1, 0.4 + abs(spread))))
        for start, limb, shortest in ((shoulder, arm, 0.82), (hip, leg, 0.8)):
            for joint, (length, angle) in enumerate(limb, start + 1):
                joints[joint] = joints[joint - 1] + length * rng.uniform(shortest, 1) * _down(side * angle + lean)
    return joints


def _down(angle: float) -> np.ndarray:
    """Unit vector `angle` radians from straight down, counter-clockwise as seen in the image."""
    return np.array([np.sin(angle), np.cos(angle)])


def draw(canvas: Canvas, joints: np.ndarray, clothes: Outfit, thickness: float, rng: np.random.Generator) -> None:
    """Paint a person, back to front: hair, legs, torso, head, arms."""
    head, neck, pelvis = joints[:3]
    spine = (neck - pelvis) / np.linalg.norm(neck - pelvis)
    if clothes.long_hair:
        canvas.part(head, neck - 0.02 * spine, (0.058, 0.05), clothes.hair)
    for hip in rng.permutation([9, 12]):
        _leg(canvas, joints[hip : hip + 3], clothes, thickness)
    if clothes.skirt:
        canvas.part(pelvis, pelvis - 0.1 * spine, (0.02, 0.02), clothes.bottom, widths=(0.045, 0.095))
    else:
        canvas.part(joints[9], joints[12], (0.042 * thickness,) * 2, clothes.bottom)
    canvas.part(neck - 0.022 * spine, pelvis, (0.028, 0.026), clothes.top, widths=(0.07, 0.045 * thickness))
    canvas.part(neck - 0.01 * spine, head, (0.026, 0.026), clothes.skin)
    _head(canvas, head, (head - neck) / np.linalg.norm(head - neck), clothes)
    for shoulder in rng.permutation([3, 6]):
        _arm(canvas, joints[shoulder : shoulder + 3], clothes, thickness)


def _leg(canvas: Canvas, joints: np.ndarray, clothes: Outfit, thickness: float) -> None:
    hip, knee, foot = joints
    outward = np.array([np.sign(foot[0] - knee[0] + 0.2 * (hip[0] - 0.5)), 0.35])
    canvas.part(foot, foot + 0.034 * outward, (0.023, 0.018), clothes.shoes)
    ends = np.array([0.043, 0.033, 0.024]) * thickness
    canvas.part(knee, foot, ends[1:], clothes.bottom, until=clothes.legs - 1, beyond=clothes.skin)
    canvas.part(hip, knee, ends[:2], clothes.bottom, until=clothes.legs, beyond=clothes.skin)


def _head(canvas: Canvas, head: np.ndarray, up: np.ndarray, clothes: Outfit) -> None:
    across = np.array([-up[1], up[0]])
    chin, crown = head - 0.022 * up, head + 0.022 * up
    canvas.shadow(chin, crown, (0.045, 0.05), 0.2)
    canvas.part(chin, crown, (0.045, 0.051), clothes.skin, until=0.62, beyond=clothes.hair, caps=1)
    for side in (-1, 1):
        eye = head + side * 0.019 * across - 0.004 * up
        canvas.dot(eye, 0.008, Paint(rgb("2a2422")))


def _arm(canvas: Canvas, joints: np.ndarray, clothes: Outfit, thickness: float) -> None:
    shoulder, elbow, hand = joints
    ends = np.array([0.034, 0.027, 0.021]) * thickness
    for a, b, radii in ((elbow, hand, ends[1:]), (shoulder, elbow, ends[:2])):
        canvas.shadow(a, b, radii)
    palm = hand + 0.012 * (hand - elbow) / np.linalg.norm(hand - elbow)
    canvas.part(hand, palm, (0.025, 0.022), clothes.skin)
    canvas.part(elbow, hand, ends[1:], clothes.top, until=clothes.sleeves - 1, beyond=clothes.skin)
    canvas.part(shoulder, elbow, ends[:2], clothes.top, until=clothes.sleeves, beyond=clothes.skin)
