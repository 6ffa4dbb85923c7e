"""Print the peak memory of one workload: `python peak.py bench_link_heatmap LABEL IMPLEMENTATION`."""

import importlib
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

from harness import peak_here  # noqa: E402

module = importlib.import_module(sys.argv[1])
(workload,) = [w for w in module.WORKLOADS if w.label == sys.argv[2]]
print(peak_here(workload, sys.argv[3], module.FORMULA))
