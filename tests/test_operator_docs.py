"""The replacements in docs/operators.md do what they replace, and its figures are those that were measured."""

import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from published_cases import golden, golden_state, needs_golden

from ppl_fast._library import OPERATORS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
N, SIZE, THICK, FACTOR = 5, 24, 3e-2, 512


@pytest.fixture(scope="module")
def page():
    """What the page's code blocks define, one after the other, as a reader would paste them."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    return SimpleNamespace(**names)


def plain_lines(starts, ends, size, thick):
    """exp(-d^2 / thick) of every pixel to every segment, (B, E, size, size); starts, ends (B, E, 2), (row, column)."""
    axis = torch.linspace(-1, 1, size, dtype=starts.dtype)
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    start, along = starts[:, :, None, None], (ends - starts)[:, :, None, None]
    share = (((pixels - start) * along).sum(-1) / along.square().sum(-1)).clamp(0, 1)
    return torch.exp(-(pixels - start - share[..., None] * along).square().sum(-1) / thick)


@pytest.fixture
def published():
    """What `rasterize` finds on the published module, and keypoints (3, N, 2), (row, column), float64."""
    parameter = ((torch.randn(N, N, dtype=torch.float64) - 1) / FACTOR).requires_grad_()
    module = SimpleNamespace(skeleton_idx=torch.triu_indices(N, N, 1), skeleton_scalar=parameter)
    module.sklr, module.thick = FACTOR, THICK
    return module, (torch.rand(3, N, 2, dtype=torch.float64) * 1.8 - 0.9).requires_grad_()


def test_rasterize(page, published):
    module, keypoints = published
    starts, ends = (keypoints[:, index] for index in module.skeleton_idx)
    weights = torch.stack(
        [F.softplus(FACTOR * module.skeleton_scalar[i, j]) for i in range(N) for j in range(i + 1, N)]
    )
    expected = (weights[:, None, None] * plain_lines(starts, ends, SIZE, THICK)).amax(1, keepdim=True)
    actual = page.rasterize(module, keypoints, SIZE)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    upstream = torch.randn_like(expected)
    leaves = keypoints, module.skeleton_scalar
    gradients = [torch.autograd.grad(heatmap, leaves, upstream) for heatmap in (actual, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_draw_lines(page):
    joints = torch.rand(2, 7, 2, 2, dtype=torch.float64) * 1.8 - 0.9
    expected = plain_lines(joints[:, :, 0], joints[:, :, 1], SIZE, THICK)
    torch.testing.assert_close(page.draw_lines(joints, SIZE, THICK), expected, rtol=1e-9, atol=1e-12)


def test_draw_skeleton(page):
    keypoints, bones = torch.rand(2, 4, 2, dtype=torch.float64) - 0.5, [(0, 3), (2, 1)]
    starts, ends = (keypoints[:, list(index)] for index in zip(*bones, strict=True))
    weights = torch.tensor([[0.5, 1.0], [2.0, 0.1]], dtype=torch.float64)
    expected = (weights[..., None, None] * plain_lines(starts, ends, SIZE, THICK)).amax(1, keepdim=True)
    actual = page.draw_skeleton(keypoints, weights, bones, SIZE, THICK)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


@needs_golden
@pytest.mark.parametrize(("model", "prefix", "thick"), [("autolink", "decoder.", 2.5e-3), ("ppl", "", 1e-3)])
def test_rasterize_gives_what_the_published_code_gave(page, model, prefix, thick):
    arrays = golden(model)
    scalar = torch.as_tensor(golden_state(model)[f"{prefix}skeleton_scalar"])
    module = SimpleNamespace(skeleton_idx=torch.triu_indices(len(scalar), len(scalar), 1), skeleton_scalar=scalar)
    module.sklr, module.thick = 512, thick
    heatmap = page.rasterize(module, arrays["keypoints"])
    torch.testing.assert_close(heatmap, arrays["link_heatmap"], rtol=1e-4, atol=1e-5)


def test_each_replacement_of_a_method_takes_five_lines():
    for block in re.findall(r"```python\n(.*?)```", PAGE[: PAGE.index("## `memory_attention`")], re.DOTALL):
        body = block[block.index("def ") :].strip().splitlines()
        assert len(body) <= 5, body[0]


def test_the_figures_are_those_measured():
    rows = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())["rows"]
    rows = {(row["shape"], row["backend"]): row for row in rows if row["op"] == "link_heatmap"}
    for name, shape, backend in (
        ("the published formula", "B=8 N=16 128x128 t=0.001", "formula"),
        ("the published formula, `torch.compile`", "B=8 N=16 128x128 t=0.001", "compiled"),
        ("`link_heatmap`", "B=8 N=16 128x128 t=0.001", "cpp"),
        ("`link_heatmap`, 64 images", "B=64 N=16 128x128 t=0.001", "cpp"),
    ):
        row = rows[shape, backend]
        time, memory = row["forward_ms"] + row["backward_ms"], row["peak_mb"]
        written = f"| {name} | {_short(time)} ms | {_short(memory)} MB |"
        assert written in PAGE, written


def test_the_figures_of_a_gpu_are_those_measured():
    import gpu_table

    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    results = ROOT / "benchmarks" / "results"
    now, first = (json.loads((results / f"{name}.json").read_text()) for name in ("gpu_h200", "first_h100"))
    tables = (gpu_table.operators, gpu_table.models, gpu_table.estimates, gpu_table.demo)
    for line in itertools.chain(*(table(now) for table in tables)):
        assert line in page, line
    before = {row["job"]: row["graph_total_us"] for row in first["rows"] if row["op"] in OPERATORS}
    for row in now["rows"]:
        if row["backend"] == "cpp" and row["job"] in before:
            a, b = (gpu_table.short(time) for time in (before[row["job"]], row["graph_total_us"]))
            assert f"| `{row['op']}` | {row['shape']} | {a} | {b} |" in page, row["job"]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:#.2g}"


def test_quantize_and_move(page):
    """As the published memory has it: distances, a one-hot product, and moving averages with Laplace smoothing."""
    tokens = torch.randn(7, 3, 4, dtype=torch.float64, requires_grad=True)
    codebook = torch.randn(3, 5, 4, dtype=torch.float64)
    squared = (tokens.unsqueeze(2) - codebook).square().sum(-1)
    chosen = F.one_hot(squared.argmin(-1), 5).double()
    expected = torch.einsum("bmk,mkd->bmd", chosen, codebook)
    values, indices, commitment = page.quantize(tokens, codebook)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(commitment, F.mse_loss(tokens, expected))
    upstream = torch.randn_like(values)
    assert torch.equal(torch.autograd.grad(values, tokens, upstream)[0], upstream)

    sizes, sums = torch.rand(3, 5, dtype=torch.float64) + 1, torch.randn(3, 5, 4, dtype=torch.float64)
    averaged = 0.9 * sizes + 0.1 * chosen.sum(0)
    total = averaged.sum(1, keepdim=True)
    smoothed = (averaged + 1e-5) / (total + 5e-5) * total
    expected = 0.9 * sums + 0.1 * torch.einsum("bmk,bmd->mkd", chosen, tokens.detach())
    page.move(codebook, sizes, sums, tokens, indices)
    torch.testing.assert_close((sizes, sums, codebook), (smoothed, expected, expected / smoothed.unsqueeze(2)))


def test_transform(page):
    template, theta = torch.rand(6, 2, dtype=torch.float64), torch.randn(4, 6, 2, 3, dtype=torch.float64)
    homogeneous = torch.cat([template, torch.ones(6, 1)], dim=1)
    torch.testing.assert_close(page.transform(template, theta), (theta @ homogeneous.unsqueeze(-1)).squeeze(-1))


def test_double(page):
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(page.double(maps), F.interpolate(maps, scale_factor=2, mode="bilinear"))
