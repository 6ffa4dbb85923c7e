"""Which instruction set the CPU kernels use, and what they refuse."""

import pytest

from ppl_fast import _library

kernels = _library.loaded("_C_cpu")
pytestmark = pytest.mark.skipif(kernels is None, reason=str(_library.failure("_C_cpu")))


def test_one_of_the_build_and_the_processor():
    available = kernels.available_isas()
    assert available and set(available) <= set(kernels.build_info()["flags"].partition("SIMD: ")[2].split())
    assert available == [isa for isa in ("avx512", "avx2", "baseline") if isa in available]  # best first
    assert kernels.current_isa() in available


def test_another_is_refused():
    before = kernels.current_isa()
    with pytest.raises(ValueError, match="use_isa: 'sse9' is not among the instruction sets of this build"):
        kernels.use_isa("sse9")
    assert kernels.current_isa() == before
