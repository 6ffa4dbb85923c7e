"""ONNX files whose convolutions compute in int8, and how far that moves what they find.

Static ranges, from images, with a scale for each channel of the weights; the convolution that makes the attention maps
stays in float32, since positions come from the softmax of it. benchmarks/export.py measures what that is worth.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppl_fast._extras import needing
from ppl_fast.options.export import check_int8

if TYPE_CHECKING:
    from ppl_fast.models import KeypointModel

FEWEST, MOST = 10, 100  # images that ranges are taken from, and as many that are measured
BATCH = 10
KEPT = ("maps",)  # words in the names of weights that stay in float32
WORST = 0.01  # of the side: keypoints that move by more in the mean are not worth the time that is saved


def check(images: Tensor, model: KeypointModel, format: str, given: Mapping[str, Any]) -> None:
    """Raise an error where `export` cannot make int8 of these images and this model; the rest as `check_int8`."""
    check_int8(format, given)
    if model.dtype != torch.float32:
        raise ValueError(f"export: int8 is made of a model in float32, got {model.dtype}")
    found, size = tuple(images.shape), model.settings.image_size
    if len(found) != 4 or found[1:] != (3, size, size) or found[0] < 2 * FEWEST:
        raise ValueError(
            f"export: int8 must be images (n, 3, {size}, {size}), n at least {2 * FEWEST}, the first half to take "
            f"ranges from and the others to measure, got shape {found}"
        )
    with needing("export in int8 needs", "export"):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401


def quantized(file: Path, out: Path, images: NDArray[np.float32], names: Sequence[str]) -> dict[str, Any]:
    """Write an ONNX file in int8, and compare it with the one that it is made of.

    Args:
        file: of one input, `images`.
        out: to write.
        images: (n, 3, S, S); the ranges are of the first half of them.
        names: outputs (B, P, 2), points in [-1, 1], whose movement is measured on the second half.

    Returns:
        {"images": how many were measured, "moved": {name: {"mean", "p99"}}}, as fractions of the side.

    Raises:
        ValueError: the keypoints move by more than `WORST` in the mean, or there is nothing to quantize.
    """
    half = min(MOST, len(images) // 2)
    ranges, measured = images[:half], images[-half:]
    quantize(file, out, ranges, KEPT)
    before, after = (found_by(each, measured, names) for each in (file, out))
    moved = {}
    for name, one, other in zip(names, before, after, strict=True):
        off = np.linalg.norm(one - other, axis=2) / 2
        moved[name] = {"mean": float(off.mean()), "p99": float(np.quantile(off, 0.99))}
    worst = moved[names[0]]["mean"]
    if not worst <= WORST:
        raise ValueError(
            f"export: int8 moves the {names[0]} by {worst:.4f} of the side in the mean, more than {WORST:g}, which is "
            "not worth it; leave int8 out"
        )
    return {"images": len(measured), "moved": moved}


def quantize(file: Path, out: Path, images: NDArray[np.float32], kept: Sequence[str]) -> None:
    """Convolutions in int8, each channel by a scale of its own; those whose weight's name has a word of `kept` stay.

    Raises:
        ValueError: there is none.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        """Batches of images."""

        batches = iter(np.array_split(images, -(-len(images) // BATCH)))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            """The next batch, None after the last."""
            return next(({"images": batch} for batch in self.batches), None)

    with tempfile.TemporaryDirectory(prefix="ppl_fast_") as folder, _quiet():
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(file, prepared, skip_symbolic_shape=True)
        convolutions = [node for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        excluded = [node.name for node in convolutions if any(word in node.input[1] for word in kept)]
        if len(convolutions) == len(excluded):
            raise ValueError("export: the model has no convolution to compute in int8")
        quantize_static(
            prepared,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=excluded,
        )


def found_by(file: Path, images: NDArray[np.float32], names: Sequence[str]) -> list[NDArray[np.float32]]:
    """What a file gives for images, by the names of its outputs."""
    from onnxruntime import InferenceSession

    session = InferenceSession(file)
    parts = np.array_split(images, -(-len(images) // BATCH))
    batches = [session.run(list(names), {"images": part}) for part in parts]
    return [np.concatenate(each) for each in zip(*batches, strict=True)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what onnxruntime advises while it quantizes."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
