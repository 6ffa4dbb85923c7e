"""Models for other runtimes: ONNX, torch.export and AOTInductor, none of which needs this package to run them.

    from ppl_fast.export import export

    export(model, "pose.onnx")                     # images -> keypoints, confidence

ONNX needs the `export` extra, AOTInductor a C++ compiler.
"""

from ppl_fast.export.estimator import Estimator
from ppl_fast.export.formats import FORMATS, Exported, export

__all__ = ["FORMATS", "Estimator", "Exported", "export"]
