"""The CUDA kernels, run by the emulator: the operators' shared tester, and what the kernels claim for themselves."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import cuda_emulator
import pytest
import torch
from cases import CASES, DIFFERENTIABLE, Case, every, first, of
from cases.link_heatmap import random_links
from cuda_emulator import emulated, kinds
from op_tester import (
    OPERATORS,
    check,
    drawn,
    evaluate,
    floating,
    gradients_are_derivatives,
    opcheck,
    poisoned_memory,
    strided,
)
from test_link_heatmap import check_keypoints_too_far_off_to_square, checked_winners

import ppl_fast

pytestmark = pytest.mark.skipif(cuda_emulator.reason_against() is not None, reason=str(cuda_emulator.reason_against()))


@pytest.fixture(params=kinds())
def library(request):
    with cuda_emulator.emulation(kind=request.param) as loaded:
        yield loaded


@pytest.fixture
def plain():
    with cuda_emulator.emulation() as loaded:
        yield loaded


def draw(make, seed=0, dtype=torch.float32):
    inputs = make(torch.Generator().manual_seed(seed))
    return {k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}


# In the quick loop the contracted build, which rounds otherwise, has each operator's first case, in what follows.
KINDS = [pytest.param(*k.values, marks=[*k.marks, *[pytest.mark.slow] * (k.values != ("plain",))]) for k in kinds()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("op", "case"), every())
def test_agrees_with_the_reference(op, case, kind):
    with cuda_emulator.emulation("backwards", kind) as library:
        before = library.cuda_emulator_launches()
        check(op, case, "emulated", torch.float32)
        empty = case.name in ("no-samples", "no-banks", "no-keypoints", "soft-no-samples")
        assert empty or library.cuda_emulator_launches() > before
    with cuda_emulator.emulation("shuffled", kind):
        check(op, case, "emulated", torch.float64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "case"), first())
def test_half_types(op, case, dtype, library):
    check(op, case, "emulated", dtype)


@pytest.mark.parametrize(("op", "case"), first())
def test_strides(op, case, library):
    check(op, case, "emulated", torch.float32, layout=strided)


SEVERAL = (
    "wide",
    "many",
    "per-sample",
    "nan",
    "published-like",
    "ties",
    "soft-odd-sizes",
    "shared",
    "own",
    "collapsed",
)


LARGE = "soft-many-tokens-and-prototypes"


@pytest.mark.parametrize(
    ("op", "case"),
    [
        pytest.param(*p.values, id=p.id, marks=[pytest.mark.slow] * (p.values[1].name == LARGE))
        for p in every()
        if any(name in p.values[1].name for name in SEVERAL)
    ],
)  # a race shows as a result that depends on the order of threads
def test_no_result_depends_on_the_order_of_threads(op, case):
    results = []
    for order in cuda_emulator.ORDERS:
        with cuda_emulator.emulation(order), poisoned_memory():
            outputs, gradients, _ = evaluate(op, case.inputs(torch.float32), "emulated")
        results.append([x.nan_to_num(nan=-7.0) for x in outputs + gradients])
    # Threads that change places at each access to shared memory, where it is watched too: see watch.cpp.
    with cuda_emulator.emulation("interleaved", "watched"), poisoned_memory():
        outputs, gradients, _ = evaluate(op, case.inputs(torch.float32), "emulated")
    results.append([x.nan_to_num(nan=-7.0) for x in outputs + gradients])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradcheck(op, library):
    inputs = drawn(op, "SMOOTH", seed=3)
    if "size" in inputs:
        inputs["size"] = (6, 7)  # pixels take their time here
    assert gradients_are_derivatives(op, "emulated", inputs, fast_mode=True)


@pytest.mark.parametrize("thickness", [1e-6, 7.5e-5, 1e-3, 0.05, 2.0])
def test_culling_never_drops_a_winner(thickness, library):
    """Every pixel's winner reaches the best value of all links; sizes leave tiles cut by the border."""
    winners = set()
    for seed, n in enumerate((4, 10, 24)):  # 24 keypoints: more links than a block holds at once
        inputs = draw(random_links(1, n, (35, 50), thickness, spread=0.5 + 0.4 * seed), seed)
        arguments = (inputs["keypoints"], inputs["weights"], ppl_fast.default_links(n), 35, 50, thickness)
        winners |= checked_winners(emulated("link_heatmap"), *arguments)
    assert len(winners) > 6


def test_a_gradient_does_not_depend_on_the_rest_of_the_batch(plain):
    """To the bit, although 40 samples would fill a GPU with fewer blocks each than two."""
    keypoints, weights, links = torch.rand(40, 3, 2) * 2 - 1, torch.rand(3), ppl_fast.default_links(3)
    winner, upstream = torch.randint(3, (40, 128, 128), dtype=torch.int16), torch.randn(40, 1, 128, 128)
    backward = emulated("link_heatmap_backward")
    whole, _ = backward(upstream, keypoints, weights, links, winner, 0.1)
    part, _ = backward(upstream[-2:], keypoints[-2:], weights, links, winner[-2:], 0.1)
    assert torch.equal(whole[-2:], part)


def test_many_links_are_drawn_in_several_goes(library):
    """276 links pass the 256 of a block and, in float64, the 208 of the backward; ties go to the lowest index."""
    inputs = draw(random_links(2, 24, 33, 1e-3), 5, torch.float64)
    links = ppl_fast.default_links(24)
    twice = torch.cat([links, links])  # the second half must never win
    weights = torch.cat([inputs["weights"]] * 2)
    heatmap, winner = emulated("link_heatmap")(inputs["keypoints"], weights, twice, 33, 33, 1e-3)
    expected, expected_winner = torch.ops.ppl_fast.link_heatmap_reference(
        inputs["keypoints"], weights, twice, 33, 33, 1e-3
    )
    torch.testing.assert_close(heatmap, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(winner, expected_winner)
    assert winner.max() > 256


def test_warps_that_draw_two_regions(plain):
    """Where samples have 6,144 regions of 16 x 8 pixels together."""
    inputs = draw(random_links(3, 3, (8, 32768), 0.05), 7, torch.float32)
    arguments = (inputs["keypoints"], inputs["weights"], ppl_fast.default_links(3), 8, 32768, 0.05)
    heatmap, winner = emulated("link_heatmap")(*arguments)
    expected, expected_winner = torch.ops.ppl_fast.link_heatmap_reference(*arguments)
    torch.testing.assert_close(heatmap, expected, rtol=1e-4, atol=1e-6)
    assert (winner == expected_winner).float().mean() > 0.999  # the others lie between two links


def test_more_links_than_a_warp_lists_at_once():
    """A keypoint where 517 links end, more than the backward's second kernel lists, and 47 with fewer each; 48 are more
    than a block's warps."""
    inputs = draw(random_links(1, 48, 9, 0.05), 6, torch.float64)
    links, weights = ppl_fast.default_links(48), inputs["weights"]
    links, weights = torch.cat([links, *[links[:47]] * 10]), torch.cat([weights, *[weights[:47]] * 10])
    arguments = (inputs["keypoints"], weights, links)
    heatmap, winner = torch.ops.ppl_fast.link_heatmap_reference(*arguments, 9, 9, 0.05)
    winner = torch.randint(1598, winner.shape, dtype=torch.int16)  # any will do, and these spread over all links
    upstream = torch.randn_like(heatmap)
    expected = torch.ops.ppl_fast.link_heatmap_backward_reference(upstream, *arguments, winner, 0.05)
    for order in cuda_emulator.ORDERS:
        with cuda_emulator.emulation(order):
            actual = emulated("link_heatmap_backward")(upstream, *arguments, winner, 0.05)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_more_links_than_int16_holds(plain):
    n = 257
    keypoints = torch.zeros(1, n, 2)
    keypoints[0, -2:] = torch.tensor([[-0.5, -1.0], [0.5, -1.0]])  # one row of pixels lies at y = -1
    weights = torch.full((n * (n - 1) // 2,), 1e-3)
    weights[-1] = 1.0
    links = ppl_fast.default_links(n)
    heatmap, winner = emulated("link_heatmap")(keypoints, weights, links, 1, 9, 1e-2)
    assert winner.dtype == torch.int32
    assert winner[0, 0, 4] == 32895
    assert heatmap[0, 0, 0, 4] == pytest.approx(1.0, rel=1e-5)
    _, grad = emulated("link_heatmap_backward")(torch.ones_like(heatmap), keypoints, weights, links, winner, 1e-2)
    assert grad[-1] > 1


@pytest.mark.parametrize("wrong", [-1, 4, 2**40])
def test_a_link_to_no_keypoint_poisons_the_sample(wrong, library):
    """Values on a GPU cannot be checked without waiting for it: the answer is NaN, and no access out of bounds."""
    links = ppl_fast.default_links(4)
    links[2, 1] = wrong
    keypoints = torch.rand(2, 4, 2)
    heatmap, winner = emulated("link_heatmap")(keypoints, torch.rand(6), links, 20, 20, 1e-2)
    assert heatmap.isnan().all()
    assert torch.all(winner == -1)
    grads = emulated("link_heatmap_backward")(torch.ones_like(heatmap), keypoints, torch.rand(6), links, winner, 1e-2)
    assert all(g.isnan().all() for g in grads)


@pytest.mark.parametrize("thickness", [1e-3, 50.0])
def test_keypoints_too_far_off_to_square_poison_their_sample(thickness, library):
    check_keypoints_too_far_off_to_square("emulated", thickness)


def test_a_nan_gradient_stays_with_its_link(library):
    keypoints = torch.tensor([[[-0.8, -0.8], [-0.8, 0.8], [0.8, -0.8], [0.8, 0.8]]], requires_grad=True)
    links = torch.tensor([[0, 1], [2, 3]])
    heatmap = ppl_fast.link_heatmap(keypoints, torch.ones(2), 16, 0.05, links, backend="emulated")
    upstream = torch.ones_like(heatmap)
    upstream[..., :4] = torch.nan  # columns that link 0 wins
    (gradient,) = torch.autograd.grad(heatmap, keypoints, upstream)
    assert gradient[0, :2].isnan().all()
    assert gradient[0, 2:].isfinite().all()


@pytest.mark.parametrize("op", CASES)
def test_launches(op, library):
    launches = [library.cuda_emulator_launches()]
    inputs, operator = drawn(op, dtype=torch.float32), OPERATORS[op]
    leaves = [inputs[name].requires_grad_() for name in operator.differentiable]
    outputs = floating(operator.function(**inputs, backend="emulated"))
    launches.append(library.cuda_emulator_launches())
    if leaves:
        torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs])
    launches.append(library.cuda_emulator_launches())
    assert tuple(b - a for a, b in itertools.pairwise(launches)) == of(op, "CUDA_LAUNCHES")


def test_kernel_info_tells_of_the_shapes_that_are_launched(plain):
    """The emulator holds no block of a shape in which a kernel has not been launched: see its cuda_runtime.h."""
    for op in CASES:
        for make in of(op, "CUDA_SHAPES"):
            evaluate(op, Case("shape", make).inputs(torch.float32), "emulated")
    module = cuda_emulator.python_module(Path(plain._name))
    assert set(module.build_info()) == {"compiler", "flags", "architectures", "torch_target", "torch_built_with"}
    rows = module.kernel_info()
    sources = "".join(source.read_text() for source in (cuda_emulator.ROOT / "csrc").glob("*_cuda.cu"))
    assert {row["kernel"].partition("<")[0] for row in rows} == set(re.findall(r"\b(\w+_kernel)\(", sources))
    for row in rows:
        assert row["blocks_per_multiprocessor"] == 1, row


@pytest.mark.slow
def test_opcheck(plain):
    """Schemas, fakes and autograd of the emulated siblings are those of the operators: one of each suffices here."""
    inputs = drawn("link_heatmap", seed=5) | {"size": (12, 20)}
    assert opcheck("link_heatmap", "emulated", inputs) == {"link_heatmap_plain", "link_heatmap_backward_plain"}


@pytest.mark.slow
def test_the_sanitizers_find_nothing():
    """All cases once more, in a process with AddressSanitizer and UndefinedBehaviorSanitizer."""
    code = f"""
import sys; sys.path[:] = {sys.path!r}
import torch, cuda_emulator
from cases import CASES, Case
from cases.memory_attention import random_tokens
from op_tester import check
CASES["memory_attention"].append(Case("tensor-cores", random_tokens(20, 1, 1060, 9)))
CASES["memory_attention"].append(Case("soft-tensor-cores", random_tokens(20, 1, 300, 9, 5.0)))
with cuda_emulator.emulation("shuffled", "sanitized"):
    for op, cases in CASES.items():
        for case in cases:
            check(op, case, "emulated", torch.float32)
print("clean")
"""
    environment = {**os.environ, **cuda_emulator.sanitizer_environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == "clean"
    assert "runtime error" not in done.stderr, done.stderr[-4000:]
