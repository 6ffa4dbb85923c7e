"""The files that a model is exported to, and what is written into them beside the model."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

import ppl_fast
from ppl_fast._backend import use_backend
from ppl_fast._extras import needing
from ppl_fast._files import replacing
from ppl_fast._library import decompositions
from ppl_fast._options import integer
from ppl_fast.export import int8 as quantization
from ppl_fast.export.estimator import Estimator
from ppl_fast.models.base import KeypointModel
from ppl_fast.options.export import SUFFIXES

if TYPE_CHECKING:
    from ppl_fast.inference import Calibration
    from ppl_fast.naming import NamedJoints
    from ppl_fast.options.footage import Framing

EXAMPLE = 2  # images in the batch that is traced; files take any number
METADATA = "ppl_fast"  # the key, or in torch.export's files the name, of what is kept in a file, as JSON


@dataclass(frozen=True)
class Exported:
    """What a file holds, and what is kept in it as JSON.

    Attributes:
        format: one of `FORMATS`.
        version: of ppl_fast.
        architecture: of the model.
        iterations: estimation passes.
        inputs: dtype, shape and meaning by name, in order; the batch is free.
        outputs: likewise.
        links: (E) pairs of keypoints.
        link_weights: (E).
        joints: the names of named joints, in order.
        skeleton: bones, pairs of joints.
        framing: how images become the model's squares, options of `ppl_fast.options.footage.Framing`.
        int8: None, or of a file whose convolutions compute in int8 the number of images that it was compared on, and by
            which fraction of the side the points moved there, `mean` and `p99`, by output.
    """

    format: str
    version: str
    architecture: str
    iterations: int
    inputs: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    links: list[list[int]]
    link_weights: list[float]
    joints: list[str]
    skeleton: list[list[int]]
    framing: dict[str, Any] | None
    int8: dict[str, Any] | None = None

    def json(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self))


class Format(NamedTuple):
    """One kind of file.

    `check()` raises where it cannot be written here; `write(program, exported, file)` writes it.
    """

    check: Callable[[], None]
    write: Callable[[torch.export.ExportedProgram, Exported, Path], None]


def export(
    model: KeypointModel,
    path: str | os.PathLike[str],
    format: str = "onnx",
    *,
    iterations: int = 1,
    visible: bool = False,
    confidence: bool | Calibration = True,
    joints: NamedJoints | None = None,
    framing: Framing | None = None,
    int8: Tensor | None = None,
) -> Exported:
    """Write a file that estimates poses without this package, for any number of images at once.

    The operators become torch's own operations, by their references.

    Args:
        model: a trained model; on the device that an AOTInductor package is to run on.
        path: of the file, which appears whole or not at all.
        format: `onnx`, for ONNX runtimes; `torchexport`, for torch.export.load; `aoti`, a compiled package, for
            torch._inductor.aoti_load_package and C++.
        iterations: estimation passes, 1 more than rounds of iterative inference.
        visible: whether there is a second input, (B, 1, S, S) bool, False where images are hidden.
        confidence: whether to tell how sure each keypoint is, which takes two more passes; by a calibration, also which
            error to expect.
        joints: named joints, to give beside the keypoints.
        framing: how images become the model's squares, to be kept in the file; it is not done there.
        int8: images (n, 3, S, S) in [-1, 1], n at least 20, for convolutions in int8: the first half to take ranges
            from, the others to measure by how much keypoints move. For ONNX, one pass, without confidence.

    Returns:
        What was written.

    Raises:
        TypeError: no `KeypointModel`.
        ValueError: an unknown format, a suffix that is not the format's, or iterations that the model cannot do; int8
            with what it is not for, or where it moves keypoints too far.
        ImportError: an extra is not installed.
        OSError: there is no compiler, or the file cannot be written.
    """
    if not isinstance(model, KeypointModel):
        raise TypeError(f"export: model must be a KeypointModel, got {type(model).__name__}")
    check(path, format)
    iterations = integer("export", "iterations", iterations, low=1)
    if int8 is not None:
        given = {"iterations": iterations > 1, "visible": visible, "confidence": confidence}
        quantization.check(int8, model, format, given)
    options: dict[str, Any] = {"iterations": iterations, "visible": visible, "confidence": confidence, "joints": joints}
    estimator = Estimator(model, **options)
    with replacing(path) as temporary:
        program, outputs = _traced(estimator)
        exported = _described(estimator, format, outputs, framing)
        with _quiet():
            if int8 is None:
                FORMATS[format].write(program, exported, temporary)
            else:
                exported = _write_int8(program, exported, temporary, int8)
    return exported


def check(path: str | os.PathLike[str], format: str) -> None:
    """Raise what `export` does of a format and a path, before any model is read."""
    if format not in FORMATS:
        raise ValueError(f"export: format must be one of {', '.join(FORMATS)}, got {format!r}")
    suffix = SUFFIXES[format]
    if Path(path).suffix != suffix:
        raise ValueError(f"export: a file of the format {format} must end in {suffix}, got {os.fspath(path)}")
    FORMATS[format].check()


def _traced(estimator: Estimator) -> tuple[torch.export.ExportedProgram, dict[str, Tensor]]:
    """The program, in torch's own operations, and its outputs for an example."""
    settings, device = estimator.model.settings, estimator.model.links.device
    size = settings.image_size
    images = torch.zeros(EXAMPLE, 3, size, size, device=device, dtype=estimator.model.dtype)
    given = (images, torch.ones(EXAMPLE, 1, size, size, dtype=torch.bool, device=device))[: 1 + estimator.visible]
    batch = torch.export.Dim("batch")
    dynamic = {name: {0: batch} for name in ("images", "visible")[: len(given)]}
    with torch.no_grad(), use_backend("reference"), _quiet():
        program = torch.export.export(estimator, given, dynamic_shapes=dynamic)
        return program.run_decompositions(decompositions()), estimator(*given)


def _described(estimator: Estimator, format: str, outputs: dict[str, Tensor], framing: Framing | None) -> Exported:
    model, size = estimator.model, estimator.model.settings.image_size
    dtype = str(model.dtype).removeprefix("torch.")
    inputs = {"images": {"dtype": dtype, "shape": ["batch", 3, size, size], "meaning": "RGB in [-1, 1]"}}
    if estimator.visible:
        meaning = "False where the images are hidden"
        inputs["visible"] = {"dtype": "bool", "shape": ["batch", 1, size, size], "meaning": meaning}
    joints = estimator.joints
    return Exported(
        format=format,
        version=ppl_fast.__version__,
        architecture=model.architecture,
        iterations=estimator.iterations,
        inputs=inputs,
        outputs={
            name: {
                "dtype": str(outputs[name].dtype).removeprefix("torch."),
                "shape": ["batch", *outputs[name].shape[1:]],
                "meaning": meaning,
            }
            for name, meaning in estimator.outputs().items()
        },
        links=model.links.tolist(),
        link_weights=model.link_weights().detach().tolist(),
        joints=list(joints.names) if joints else [],
        skeleton=[list(bone) for bone in joints.skeleton] if joints else [],
        framing=None if framing is None else asdict(framing),
    )


# The formats


def _check_onnx() -> None:
    with needing("export to ONNX needs", "export"):
        import onnx  # noqa: F401 - torch.onnx writes by these
        import onnxscript  # noqa: F401


def _write_onnx(program: torch.export.ExportedProgram, exported: Exported, file: Path) -> None:
    names: dict[str, Any] = {"input_names": list(exported.inputs), "output_names": list(exported.outputs)}
    made: Any = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False, **names)
    model = made.model_proto
    graph, symbol = model.graph, model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == symbol:  # which torch has chosen
                size.dim_param = "batch"
    model.metadata_props.add(key=METADATA, value=exported.json())
    file.write_bytes(model.SerializeToString())


def _write_int8(program: torch.export.ExportedProgram, exported: Exported, file: Path, images: Tensor) -> Exported:
    """The ONNX file in int8; what is kept in it then has what that did to the points."""
    import onnx

    points = [name for name in ("keypoints", "joints") if name in exported.outputs]
    with tempfile.TemporaryDirectory(prefix="ppl_fast_") as folder:
        whole, small = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        _write_onnx(program, exported, whole)
        moved = quantization.quantized(whole, small, images.detach().cpu().float().numpy(), points)
        exported, made = replace(exported, int8=moved), onnx.load(small)
    onnx.helper.set_model_props(made, {METADATA: exported.json()})
    file.write_bytes(made.SerializeToString())
    return exported


def _write_torchexport(program: torch.export.ExportedProgram, exported: Exported, file: Path) -> None:
    with open(file, "wb") as opened:
        torch.export.save(program, opened, extra_files={METADATA: exported.json()})


def _check_aoti() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise OSError("export to AOTInductor needs a C++ compiler: install g++, or name one by CXX") from error


def _write_aoti(program: torch.export.ExportedProgram, exported: Exported, file: Path) -> None:
    configs = {"aot_inductor.metadata": {METADATA: exported.json()}}
    with open(file, "wb") as opened:
        torch._inductor.aoti_compile_and_package(program, package_path=opened, inductor_configs=configs)


FORMATS = {
    "onnx": Format(_check_onnx, _write_onnx),
    "torchexport": Format(lambda: None, _write_torchexport),
    "aoti": Format(_check_aoti, _write_aoti),
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of itself while it traces."""
    talking = logging.getLogger("torch.onnx")
    level = talking.level
    try:
        talking.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talking.setLevel(level)
