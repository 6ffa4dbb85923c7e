"""A four-legged animal seen from its right side: joints, poses, coats and how they are drawn."""

from dataclasses import dataclass, replace

import numpy as np

from ppl_fast.data.backgrounds import meadow
from ppl_fast.data.drawing import Canvas, Paint, rgb

NAMES = [
    "nose", "head", "withers", "shoulder", "rump", "hip", "tail",
    "front_right_knee", "front_right_foot", "front_left_knee", "front_left_foot",
    "hind_right_knee", "hind_right_foot", "hind_left_knee", "hind_left_foot",
]  # fmt: skip
SKELETON = [
    (0, 1), (1, 2), (2, 3), (2, 4), (4, 5), (4, 6),
    (3, 7), (7, 8), (3, 9), (9, 10), (5, 11), (11, 12), (5, 13), (13, 14),
]  # fmt: skip
CENTRE = (0.47, 0.43)
FEET = [8, 10, 12, 14]
SCENES = [meadow]

_BODY, _BACK, _NECK, _HEAD, _TAIL, _UPPER_LEG, _LOWER_LEG = 0.31, 0.06, 0.17, 0.11, 0.19, 0.145, 0.145
# Where in the stride each leg is, in turns: front right, front left, hind right, hind left.
_GAITS = {"walk": (0, 0.5, 0.75, 0.25), "trot": (0, 0.5, 0.5, 0), "gallop": (0, 0.12, 0.5, 0.62)}

_COATS = ["8a5a34", "5a3a26", "b98a56", "3a3330", "d8cbb5", "9a9691", "c46f3a", "e6dcc8", "6f655c"]
_PATTERNS = ["plain", "plain", "patches", "patches", "dots", "hoops"]


@dataclass(frozen=True)
class Outfit:
    """A coat and a build."""

    coat: Paint
    socks: Paint
    mane: Paint
    muzzle: Paint
    sock_height: float
    girth: float
    ears: float
    has_mane: bool
    tuft: float


def outfit(rng: np.random.Generator) -> Outfit:
    """Draw a coat and a build."""
    first, second = rng.choice(_COATS, 2, replace=False)
    coat = Paint(rgb(first), rgb(second), str(rng.choice(_PATTERNS)), rng.uniform(0.045, 0.075), rng.uniform(0, 9))
    dark = Paint(rgb(rng.choice(["2d2623", "4a3628", "efe6d6"])))
    return Outfit(
        coat=coat,
        socks=Paint(rgb(rng.choice(["f0e8da", "2f2926", first, first]))),
        mane=dark,
        muzzle=Paint(0.6 * coat.colour + 0.4 * rgb(rng.choice(["f0e0d0", "2f2926"]))),
        sock_height=float(rng.uniform(0.2, 0.8)),
        girth=float(rng.uniform(0.85, 1.15)),
        ears=float(rng.uniform(0.03, 0.055)),
        has_mane=bool(rng.random() < 0.55),
        tuft=float(rng.uniform(0.012, 0.024)),
    )


def pose(rng: np.random.Generator) -> np.ndarray:
    """Draw a pose, head to the right: (15, 2) joints around the middle of the back, in units of the image side."""
    pitch = rng.normal(0, 0.09)
    joints = np.zeros((15, 2))
    back = _BODY * rng.uniform(0.92, 1) * _ahead(pitch)
    up = _ahead(pitch + np.pi / 2)
    joints[2], joints[4] = back / 2, -back / 2
    joints[3], joints[5] = joints[2] - _BACK * up + 0.02 * _ahead(pitch), joints[4] - _BACK * up
    neck = pitch + rng.triangular(-0.75, 0.95, 1.35)
    joints[1] = joints[2] + _NECK * rng.uniform(0.9, 1) * _ahead(neck)
    joints[0] = joints[1] + _HEAD * _ahead(np.clip(neck - rng.uniform(0.8, 1.6), -1.6, 0.3))
    joints[6] = joints[4] + _TAIL * rng.uniform(0.85, 1) * _ahead(pitch - np.pi / 2 - rng.triangular(0.05, 0.4, 1.7))
    gait, phase = _GAITS[str(rng.choice(list(_GAITS)))], rng.uniform(0, 1)
    stride, lift = rng.uniform(0.12, 0.75), rng.uniform(0.4, 1.3)
    for leg, offset in enumerate(gait):
        turn = 2 * np.pi * (phase + offset) + rng.normal(0, 0.25)
        swing, fold = stride * np.sin(turn), lift * stride * max(0.0, np.cos(turn))
        bent = (swing, swing - 1.6 * fold) if leg < 2 else (swing - 0.25 - 0.4 * fold, swing + 0.12 + 0.8 * fold)
        knee, start = 7 + 2 * leg, 3 if leg < 2 else 5
        for joint, before, length, angle in ((knee, start, _UPPER_LEG, bent[0]), (knee + 1, knee, _LOWER_LEG, bent[1])):
            joints[joint] = joints[before] + length * rng.uniform(0.93, 1) * _ahead(pitch - np.pi / 2 + angle)
    return joints


def _ahead(angle: float) -> np.ndarray:
    """Unit vector `angle` radians above straight ahead, which is to the right."""
    return np.array([np.cos(angle), -np.sin(angle)])


def draw(canvas: Canvas, joints: np.ndarray, build: Outfit, thickness: float, rng: np.random.Generator) -> None:
    """Paint the animal, back to front: far legs, tail, body, near legs, neck, head."""
    nose, head, withers, shoulder, rump, hip, tail = joints[:7]
    for start, knee in ((shoulder, 9), (hip, 13)):
        _leg(canvas, start, joints[knee : knee + 2], build, thickness, 0.62, knee > 10)
    root = rump + 0.012 * (hip - rump) / np.linalg.norm(hip - rump)
    canvas.part(root, tail, (0.012, 0.008 + build.tuft * 0.4), build.mane)
    canvas.part(tail + 0.3 * (root - tail), tail, (0.012, build.tuft), build.mane, caps=1)
    belly = build.girth * thickness
    chest, loin = 0.45 * withers + 0.55 * shoulder, 0.5 * (rump + hip)
    neck_end = head + 0.02 * (withers - head) / np.linalg.norm(withers - head)
    canvas.part(loin, chest, (0.064 * belly, 0.072 * belly), build.coat, caps=0.9)
    for start, knee in ((hip, 11), (shoulder, 7)):
        _leg(canvas, start, joints[knee : knee + 2], build, thickness, 1.0, knee > 10)
    if build.has_mane:
        crest = np.array([-(head - withers)[1], (head - withers)[0]]) / np.linalg.norm(head - withers)
        crest = -crest if crest[1] > 0 else crest
        canvas.part(withers + 0.022 * crest, head + 0.026 * crest, (0.02, 0.02), build.mane)
    canvas.part(0.6 * withers + 0.4 * shoulder, neck_end, (0.056 * belly, 0.034), build.coat)
    _head(canvas, nose, head, build)


def _leg(
    canvas: Canvas, start: np.ndarray, joints: np.ndarray, build: Outfit, thickness: float, light: float, hind: bool
) -> None:
    """One leg from shoulder or hip over the knee to the foot; the far ones are darker."""
    knee, foot = joints
    coat, socks, hoof = (_dim(paint, light) for paint in (build.coat, build.socks, Paint(rgb("3a322c"))))
    thigh = (0.048 if hind else 0.038) * thickness
    canvas.part(foot, foot + (0.012, 0.004), (0.019 * thickness, 0.017), hoof)
    canvas.part(knee, foot, (0.022 * thickness, 0.016 * thickness), coat, until=1 - build.sock_height, beyond=socks)
    canvas.part(start, knee, (thigh, 0.023 * thickness), coat)


def _head(canvas: Canvas, nose: np.ndarray, head: np.ndarray, build: Outfit) -> None:
    ahead = (nose - head) / np.linalg.norm(nose - head)
    above = np.array([ahead[1], -ahead[0]])
    for shift, light in ((-0.012, 0.7), (0.0, 1.0)):
        ear = head - 0.012 * ahead + 0.02 * above + shift * ahead
        canvas.part(ear, ear + build.ears * (0.85 * above - 0.5 * ahead), (0.014, 0.005), _dim(build.coat, light))
    plain = replace(build.coat, pattern="plain")
    canvas.part(head, nose, (0.04, 0.024), plain, until=0.62, beyond=build.muzzle, caps=1)
    canvas.dot(head + 0.022 * ahead + 0.012 * above, 0.009, Paint(rgb("1f1a18")))
    canvas.dot(nose + 0.01 * ahead + 0.006 * above, 0.006, Paint(rgb("2b2320")))


def _dim(paint: Paint, light: float) -> Paint:
    second = None if paint.second is None else paint.second * np.float32(light)
    return replace(paint, colour=paint.colour * np.float32(light), second=second)
