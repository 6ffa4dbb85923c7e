"""Published hyperparameters by architecture and data set, in the form of a run's configuration file.

What is not listed is the default of the models and of `TrainConfig`, which is the published default: 16 keypoints,
128 x 128 pixels, thickness 1e-3, 16 x 16 blocks of which 80 % are dropped, batches of 64, learning rate 1e-4, mirrored
images, 20,000 steps (PPL) or 20,001 (AutoLink). Sources, number by number:

- paper: Wang, Han, Zhang, "Pose Prior Learner", ICLR 2026, arXiv 2410.03858.
- scripts: `scripts/train_*.sh` and `train.py` of its published code.
- AutoLink: names of its published checkpoints, as its scripts load them, and its data set classes.
"""

from typing import Any

from ppl_fast.options import demo

Preset = dict[str, dict[str, Any]]

_MASKED = {"mask_blocks": 8, "mask_ratio": 0.9}  # scripts; the paper has 80 to 90 %
_HUMAN36M: Preset = {"model": {"thickness": 7.5e-5}, "train": {"reference": "video"}}  # paper; the script has 5e-5
_CUB: Preset = {"model": {}, "train": {"flip": False}}  # train.py
_DEFAULT: Preset = {"model": {}, "train": {}}  # nothing else is published

_PPL: dict[str, Preset] = {
    "human36m": _HUMAN36M,
    "human36m_masked": _HUMAN36M,
    "taichi": {"model": {}, "train": {"reference": "video"}},  # paper
    **dict.fromkeys(("cub", "cub_three", "cub_001", "cub_002", "cub_003"), _CUB),
    "hands": {"model": {"thickness": 1e-4, **_MASKED}, "train": {"steps": 5_000}},  # paper, mask_ratio: scripts
    "horse2zebra": _DEFAULT,
    "zebras": _DEFAULT,
    "flowers": {"model": {"thickness": 1e-4, **_MASKED}, "train": {}},  # paper, mask: scripts
    "dogs": _DEFAULT,
}

_AUTOLINK: dict[str, Preset] = {
    "human36m": {"model": {"num_keypoints": 32, "thickness": 7.5e-5}, "train": {}},  # h36m_k32_m0.8_b16_t7.5e-05
    "human36m_masked": {"model": {"num_keypoints": 32, "thickness": 7.5e-5}, "train": {"flip": False}},  # and h36m_wobg
    "taichi": {"model": {"num_keypoints": 10, "thickness": 5e-4}, "train": {}},  # taichi_k10_m0.8_b16_t0.0005
    # cub_k4_m0.8_b16_t0.05; not mirrored, as in the class of CUB.
    **dict.fromkeys(
        ("cub", "cub_three", "cub_001", "cub_002", "cub_003"),
        {"model": {"num_keypoints": 4, "thickness": 5e-2}, "train": {"flip": False}},
    ),
    "hands": _DEFAULT,
    "horse2zebra": {"model": {"num_keypoints": 32, "thickness": 2.5e-4}, "train": {"flip": False}},  # horse_k32_...
    "zebras": {"model": {}, "train": {"flip": False}},  # the class zebra
    "flowers": _DEFAULT,
    "dogs": _DEFAULT,
}


def _apart(presets: dict[str, Preset]) -> dict[str, Preset]:
    """Each data set's options in dicts of their own, so that to change one changes no other."""
    return {name: {part: dict(options) for part, options in preset.items()} for name, preset in presets.items()}


# An architecture that is not listed has none.
PRESETS: dict[str, dict[str, Preset]] = {
    "ppl": _apart(_PPL),
    "extended-ppl": _apart(_PPL),
    "autolink": _apart(_AUTOLINK),
    "extended-autolink": _apart(_AUTOLINK),
}


def preset_of(architecture: str, dataset: str | None) -> Preset:
    """The options published for a data set by name; none for one without, or for a folder (None)."""
    return PRESETS.get(architecture, {}).get(dataset or "", _DEFAULT)


# The demo's models, which learn from pixels, without pretrained features, in minutes on a CPU.
_SMALL_TRAIN: dict[str, Any] = {"steps": demo.STEPS} | demo.LEARNING
SMALL: dict[str, Preset] = {
    "extended-ppl": {"model": demo.MODEL, "train": _SMALL_TRAIN},
    "extended-autolink": {"model": demo.BASELINE, "train": _SMALL_TRAIN},
}
NAMES = ("small", "published", *_PPL)


def preset(name: str | None, architecture: str, dataset: str | None) -> Preset:
    """The options of a preset by name.

    Args:
        name: "small"; "published", the published options of the data set; or a data set whose published options to
            take for other images; None is "published".
        architecture: a key of `ppl_fast.options.CONFIGS`.
        dataset: name of the published data set that is trained on; None for a folder.

    Raises:
        ValueError: there is no such preset of this architecture; the sentence names the preset.
    """
    if name == "small":
        if architecture not in SMALL:
            raise ValueError(f"--preset small is of {' and '.join(SMALL)}, got the architecture {architecture}")
        return SMALL[architecture]
    return preset_of(architecture, dataset if name in (None, "published") else name)
