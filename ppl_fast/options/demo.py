"""What the demo trains, and for how long: small enough for two CPU cores, and without pretrained features."""

from typing import Any

from ppl_fast.options.config import AutoLinkConfig

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
    "head": "residual",
    "occlude_input": 0.4,
    "occlude_fill": True,
    "translator": "light",
    "translator_base": 16,
    "translator_levels": 3,
    "mask_blocks": 8,
    "mask_ratio": 0.9,
    "reconstruction_loss": "mse",
    "reconstruction_weight": 4.0,
    "separation_weight": 0.01,
    "withhold": 0.5,
    "foreground_weight": 3.0,
    "coverage_weight": 8.0,
    "stray_weight": 1.6,
    "prior_weight": 100.0,
}
TRAIN: dict[str, Any] = {
    "batch_size": 8,
    "lr": 1e-3,
    "betas": (0.9, 0.99),
    "schedule": "cosine",
    "flip": False,
    "cache": True,
    "workers": 0,
    "channels_last": True,
    "device": "cpu",
    "tensorboard": False,
    "checkpoint_every": 1000,
    "picture_every": 1000,
}
# AutoLink, the baseline: the same, as far as the published model has the same, and its keypoints kept apart as well.
BASELINE = {name: value for name, value in MODEL.items() if name in AutoLinkConfig.__dataclass_fields__}
BASELINE |= {"detector_size": MODEL["image_size"], "detector_base": MODEL["regressor_base"]}
BASELINE["separation_weight"] = MODEL["separation_weight"]
STEPS, FIGURES, TEST_FIGURES = 4000, 3500, 500
BASELINE_STEPS = 1000  # by then it is about as accurate on whole figures as PPL in the end (docs/demo.md)
