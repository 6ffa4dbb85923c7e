"""What depends on the architecture that is compiled for, by the PTX of one source. There need be no GPU."""

import re

import pytest
from test_cuda_compiles import ROOT, compile_alone, pytestmark

__all__ = ["pytestmark"]  # slow, and skipped where there is no nvcc


@pytest.mark.parametrize("arch", ["75", "80"])
@pytest.mark.parametrize(
    ("mode", "entries", "products"),
    [
        ("screen", 3, 3 * 16),
        ("soft_tensor", 2, 3 * (16 + 8)),
        ("soft_tensor_backward", 5, 3 * (16 + 16 + 8 + 8 + 8)),
    ],
)
def test_only_code_for_sm_80_multiplies_in_tf32(mode, entries, products, arch, tmp_path):
    """Hard mode's kernel by storage type, or soft mode's and what adds its shares, or those of its backward; where
    there are no such products, code that comes to them must stop."""
    source, ptx = ROOT / "csrc" / f"memory_attention_{mode}_cuda.cu", tmp_path / "kernels.ptx"
    compile_alone(source, ["-ptx", f"-arch=compute_{arch}"], ptx)
    text = ptx.read_text()
    assert text.count(".entry") == entries
    assert text.count("mma.sync") == (products if arch == "80" else 0)
    assert ("trap;" in text) == (arch == "75")


@pytest.mark.parametrize(("arch", "overlaps"), [("80", False), ("90", True)])
def test_the_reduction_waits_for_the_sums_where_it_may_overlap_them(arch, overlaps, tmp_path):
    """Four kernels of each, by storage type: the one lets the next begin, which waits before it touches memory."""
    source, ptx = ROOT / "csrc" / "link_heatmap_backward_cuda.cu", tmp_path / "kernels.ptx"
    compile_alone(source, ["-ptx", f"-arch=compute_{arch}"], ptx)
    entries = ptx.read_text().split(".entry")[1:]
    assert len(entries) == 8
    for entry in entries:
        second = "reduce_kernel" in entry.partition("(")[0]
        assert ("griddepcontrol.launch_dependents" in entry) == (overlaps and not second)
        before, waits, _ = entry.partition("griddepcontrol.wait")
        assert bool(waits) == (overlaps and second)
        assert not waits or not re.search(r"\b(ld|st)\.global", before)
