"""What the demo and the preset `small` train: small enough for two CPU cores, and without pretrained features."""

from typing import Any

from ppl_fast.options.extended import ExtendedAutoLinkConfig

MODEL: dict[str, Any] = {
    "num_keypoints": 16,
    "image_size": 64,
    "thickness": 5e-3,
    "link_factor": 100.0,
    "link_start": -2.5,
    "memory_width": 64,
    "memory_hidden": 64,
    "memory_layers": 2,
    "memory_banks": 8,
    "memory_prototypes": 32,
    "memory_decay": 0.98,
    "memory_start": "balanced",
    "reseed_after": 50,
    "regressor_base": 16,
    "head": "position",
    "occlude_input": 0.25,
    "occlude_fill": True,
    "occlude_fill_share": 0.5,
    "translator": "light",
    "translator_base": 16,
    "translator_levels": 3,
    "mask_blocks": 8,
    "mask_ratio": 0.9,
    "reconstruction_loss": "mse",
    "reconstruction_weight": 4.0,
    "separation_weight": 0.01,
    "equivariance_weight": 3.0,
    "equivariance_ramp": 0.125,
    "withhold": 0.5,
    "withhold_until": 0.6,
    "foreground_weight": 3.0,
    "coverage_weight": 8.0,
    "coverage_even": True,
    "stray_weight": 1.6,
    "prior_weight": 100.0,
}
LEARNING: dict[str, Any] = {
    "batch_size": 8,
    "lr": 1e-3,
    "betas": (0.9, 0.99),
    "schedule": "cosine",
    "flip": False,
    "channels_last": True,
    "masks": "auto",
}
TRAIN: dict[str, Any] = LEARNING | {
    "cache": "memory",
    "workers": 0,
    "device": "cpu",
    "tracker": "none",
    "checkpoint_every": 1000,
    "picture_every": 1000,
}
# AutoLink, the baseline, at its best: with every extra that it can take, and as many steps.
BASELINE = {name: value for name, value in MODEL.items() if name in ExtendedAutoLinkConfig.__dataclass_fields__}
BASELINE |= {"detector_size": MODEL["image_size"], "detector_base": MODEL["regressor_base"]}
STEPS, FIGURES, TEST_FIGURES = 4000, 3500, 500
BASELINE_STEPS = STEPS
