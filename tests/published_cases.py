"""The published models' golden arrays and state dicts, and small models and files for the tests of `published`."""

import io
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ppl_fast.models import PPL, AutoLink

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"the published models' golden arrays are not at {GOLDEN}"
)
SMALL = {"num_keypoints": 5, "image_size": 32, "translator_base": 4, "translator_levels": 3}
SMALL_PPL = SMALL | {
    "memory_banks": 3,
    "memory_prototypes": 4,
    "memory_width": 8,
    "memory_hidden": 6,
    "memory_token_hidden": 7,
    "memory_layers": 2,
    "memory_decoder_width": 9,
    "memory_decoder_hidden": 10,
    "regressor_base": 4,
    "regressor_levels": 3,
}
PUBLISHED = {"thick": 2e-3, "sklr": 256.0, "block": 8, "missing": 0.9}  # attributes and hyper-parameters
SMALL_AUTOLINK = SMALL | {"detector_size": 32, "detector_base": 4, "detector_levels": 3}


def golden(model: str) -> dict[str, torch.Tensor]:
    """What the published code gives for the weights of `golden_state`; coordinates are (row, column)."""
    with np.load(GOLDEN / f"published_{model}_seed0.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def golden_state(model: str) -> dict[str, torch.Tensor]:
    sys.path.insert(0, str(GOLDEN))
    try:
        from weights import published_state_dict
    finally:
        sys.path.remove(str(GOLDEN))
    return {key: torch.from_numpy(np.asarray(value)) for key, value in published_state_dict(model).items()}


def agree(found, expected, tolerance):
    """Largest difference against the largest value of the array."""
    error = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
    assert error <= tolerance, f"relative error {error:.2e}"


def small_ppl(**options) -> PPL:
    return PPL(**(SMALL_PPL | options))


def small_autolink(**options) -> AutoLink:
    return AutoLink(**(SMALL_AUTOLINK | options))


def arguments(**changed) -> SimpleNamespace:
    """What the published train.py gives to its model."""
    defaults = {
        "num_parts": 16,
        "thick": 1e-3,
        "sklr": 512,
        "block": 16,
        "missing": 0.8,
        "use_alpha": True,
        "alpha": 1.0,
    }
    return SimpleNamespace(**(defaults | changed))


def grow(root, state):
    """Modules and buffers under `root`, as a state dict names them."""
    for key, value in state.items():
        *path, leaf = key.split(".")
        module = root
        for name in path:
            if name not in module._modules:
                module.add_module(name, nn.Module())
            module = module._modules[name]
        if value.is_floating_point() and leaf not in ("running_mean", "running_var", "codebook"):
            module.register_parameter(leaf, nn.Parameter(value))
        else:
            module.register_buffer(leaf, value)
    return root


def pickled_module(published_class, state, **attributes):
    """The published PPL as an object, with other state and attributes."""
    root = grow(published_class("models.pose_prior_learner", "PosePriorLearner")(), state)
    root.memory.__class__ = published_class("models.pose_prior_learner", "Memory")
    root.regressor.__class__ = published_class("models.modules", "ResNetConditionalParameterRegressor")
    root.register_buffer("scratch", torch.ones(3), persistent=False)
    vars(root).update(attributes, aug=torch.ones(5, 1), num_parts=5, use_alpha=True)
    return root


def zipped(path: Path, program: bytes, entries: dict[str, bytes] | None = None, compression=zipfile.ZIP_STORED) -> Path:
    """A checkpoint in the zip format, with any pickle in it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in (entries or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


def streamed(path: Path, program: bytes, storages: dict[str, torch.Tensor] | None = None) -> Path:
    """A checkpoint in the format before zip, with any pickle in it."""
    file, storages = io.BytesIO(), storages or {}
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        file.write(pickle.dumps(value, 2))
    file.write(program + pickle.dumps(list(storages), 2))
    for storage in storages.values():
        file.write(struct.pack("<q", len(storage)) + storage.numpy().tobytes())
    path.write_bytes(file.getvalue())
    return path


def before_norms(state):
    """Biases of the convolutions of a published state dict that a BatchNorm follows, with its running mean."""
    found = {}
    for key in state:
        parent, _, number = key.removesuffix(".running_mean").rpartition(".")
        if key.endswith(".running_mean"):
            layers = (f"{parent}.{index}" for index in reversed(range(int(number))))
            found[next(f"{layer}.bias" for layer in layers if f"{layer}.weight" in state)] = key
    return found
