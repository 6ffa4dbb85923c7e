"""memory_attention: each token attends to the prototypes of its own memory bank (paper section 3, the memory M)."""

from typing import Any, Protocol

import torch
from torch import Tensor

from ppl_fast import _backend, _check, _library
from ppl_fast._backend import Backend
from ppl_fast._library import Autograd, Context, Definition, Op
from ppl_fast._options import plain
from ppl_fast.ops._examples import normal

# With D_j = |t - p_j|^2 and n the nearest prototype:
#   hard:  values = p_n, gradient straight through to t;
#   soft:  P = softmax(-D / temperature), values = sum_j P_j p_j. For an upstream gradient g, write
#          h_j = g . (p_j - p_n) and q = sum_j P_j h_j; then
#          grad_t = 2 (sum_j P_j h_j p_j - q values) / temperature   and   grad_p_j = P_j g + 2 s_j (t - p_j)
#          with s_j = P_j (h_j - q) / temperature. All is relative to the nearest, since a temperature towards 0
#          magnifies rounding: P_j = exp((D_n - D_j) / temperature) / total, and what is equal differs by 0;
#   both:  distances = D_n, with gradient 2 (t - p_n) to t and its negative to p_n.

_SCHEMA = "(Tensor tokens, Tensor prototypes, float? temperature) -> (Tensor, Tensor, Tensor, Tensor)"
_SCHEMA_BACKWARD = (
    "(Tensor grad_values, Tensor grad_distances, Tensor tokens, Tensor prototypes, Tensor values, Tensor indices, "
    "Tensor softmax, float? temperature, bool needs_prototypes) -> (Tensor, Tensor)"
)
_SCHEMA_SUMS = "(Tensor tokens, Tensor indices, int k) -> (Tensor, Tensor)"


Attended = tuple[Tensor, Tensor, Tensor, Tensor]  # values, indices, distances, softmax


def _squared_distances(tokens: Tensor, prototypes: Tensor) -> Tensor:
    return (tokens.unsqueeze(2) - prototypes).square().sum(-1)  # (B, m, k); differences, not |t|^2 - 2 t.p + |p|^2


def usable_temperature(temperature: float, dtype: torch.dtype) -> float:
    """What to divide by in `dtype`: from its smallest normal number, which takes the nearest, to its inverse."""
    tiny = torch.finfo(dtype).tiny
    return min(max(temperature, tiny), 1 / tiny)


def memory_attention_reference(tokens: Tensor, prototypes: Tensor, temperature: float | None) -> Attended:
    """Values (B, m, d), indices (B, m), distances (B, m) and softmax, which is empty in hard mode.

    softmax (2, B, m) holds the smallest distance, not rounded, and the sum of the weights relative to it.
    """
    compute = torch.promote_types(tokens.dtype, torch.float32)
    t, p = tokens.to(compute), prototypes.to(compute)
    squared = _squared_distances(t, p)
    distances, indices = squared.min(-1) if squared.numel() else (squared.sum(-1), squared.sum(-1).long())
    # min does not promise the first of equal elements; the first position that attains it is the lowest index
    indices = (squared == distances.unsqueeze(-1)).long().argmax(-1) if squared.numel() else indices
    if temperature is None:
        banks = torch.arange(t.shape[1], device=t.device)
        values, softmax = p[banks, indices], t.new_empty(0)
    else:
        weights = torch.exp((distances.unsqueeze(-1) - squared) / usable_temperature(temperature, compute))
        softmax = torch.stack([distances, weights.sum(-1)])
        values = torch.einsum("bmk,mkd->bmd", weights / softmax[1].unsqueeze(-1), p).contiguous()
    return values.to(tokens.dtype), indices, distances.to(tokens.dtype), softmax


def _formula(tokens: Tensor, prototypes: Tensor, temperature: float | None) -> Attended:
    """The same, as a function of tokens and prototypes that torch differentiates."""
    compute = torch.promote_types(tokens.dtype, torch.float32)
    t, p = tokens.to(compute), prototypes.to(compute)
    _, indices, _, softmax = memory_attention_reference(tokens.detach(), prototypes.detach(), temperature)
    chosen = p[torch.arange(t.shape[1], device=t.device), indices]
    if temperature is None:
        values = chosen.detach() + (t - t.detach())  # exactly the prototypes; the derivative passes straight through
    else:
        squared = _squared_distances(t, p)
        nearer = (squared.detach().amin(-1, keepdim=True) - squared) / usable_temperature(temperature, compute)
        values = torch.einsum("bmk,mkd->bmd", nearer.softmax(-1), p)
    distances = (t - chosen).square().sum(-1)
    return values.to(tokens.dtype), indices, distances.to(tokens.dtype), softmax


def memory_attention_backward_reference(
    grad_values: Tensor,
    grad_distances: Tensor,
    tokens: Tensor,
    prototypes: Tensor,
    values: Tensor,
    indices: Tensor,
    softmax: Tensor,
    temperature: float | None,
    needs_prototypes: bool,
) -> tuple[Tensor, Tensor]:
    """(grad_tokens, grad_prototypes); the second is empty unless `needs_prototypes`."""
    compute = torch.promote_types(tokens.dtype, torch.float32)
    g, t, p = grad_values.to(compute), tokens.to(compute), prototypes.to(compute)
    banks = torch.arange(t.shape[1], device=t.device).expand_as(indices)
    along = 2 * grad_distances.to(compute).unsqueeze(-1) * (t - p[banks, indices])
    grad_tokens, grad_prototypes = along.clone(), torch.zeros_like(p)
    grad_prototypes.index_put_((banks, indices), -along, accumulate=True)
    if temperature is None:
        grad_tokens += g
    else:
        temperature = usable_temperature(temperature, compute)
        least, total = softmax.unsqueeze(-1)
        weights = torch.exp((least - _squared_distances(t, p)) / temperature) / total
        h = (g.unsqueeze(2) * (p - p[banks, indices].unsqueeze(2))).sum(-1)
        q = (weights * h).sum(-1, keepdim=True)
        grad_tokens += 2 * (torch.einsum("bmk,mkd->bmd", weights * h, p) - q * values.to(compute)) / temperature
        s = weights * (h - q) / temperature
        grad_prototypes += torch.einsum("bmk,bmd->mkd", weights, g)
        grad_prototypes += 2 * (torch.einsum("bmk,bmd->mkd", s, t) - s.sum(0).unsqueeze(-1) * p)
    empty = prototypes.new_empty(0)
    return grad_tokens.to(tokens.dtype), grad_prototypes.to(prototypes.dtype) if needs_prototypes else empty


def prototype_sums_reference(tokens: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """How many tokens chose each prototype, (m, k), and their sums, (m, k, d)."""
    compute = torch.promote_types(tokens.dtype, torch.float32)
    counts = torch.nn.functional.one_hot(indices, k).sum(0).to(compute)
    sums = tokens.new_zeros((*counts.shape, tokens.shape[2]), dtype=compute)
    # Added, not multiplied by zeros and ones: a NaN stays with the prototype that its token chose.
    at = torch.arange(len(counts), device=indices.device), indices
    return counts, torch.index_put(sums, at, tokens.to(compute), accumulate=True)


def _fake(tokens: Tensor, prototypes: Tensor, temperature: float | None) -> Attended:
    b, m, d = tokens.shape
    compute = torch.promote_types(tokens.dtype, torch.float32)
    softmax = tokens.new_empty(0 if temperature is None else (2, b, m), dtype=compute)
    return tokens.new_empty((b, m, d)), tokens.new_empty((b, m), dtype=torch.long), tokens.new_empty((b, m)), softmax


def _fake_backward(
    grad_values: Tensor,
    grad_distances: Tensor,
    tokens: Tensor,
    prototypes: Tensor,
    values: Tensor,
    indices: Tensor,
    softmax: Tensor,
    temperature: float | None,
    needs_prototypes: bool,
) -> tuple[Tensor, Tensor]:
    return tokens.new_empty(tokens.shape), prototypes.new_empty(prototypes.shape if needs_prototypes else 0)


def _fake_sums(tokens: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    compute = torch.promote_types(tokens.dtype, torch.float32)
    m, d = tokens.shape[1:]
    return tokens.new_empty((m, k), dtype=compute), tokens.new_empty((m, k, d), dtype=compute)


class _Context(Context, Protocol):
    temperature: float | None


def _setup_context(ctx: _Context, inputs: tuple[Tensor, Tensor, float | None], output: Attended) -> None:
    tokens, prototypes, ctx.temperature = inputs
    values, indices, _, softmax = output
    ctx.save_for_backward(tokens, prototypes, values, indices, softmax)


def _backward(
    gradient: Op,
    ctx: _Context,
    grad_values: Tensor | None,
    grad_indices: None,
    grad_distances: Tensor | None,
    grad_softmax: None,
) -> tuple[Tensor, Tensor | None, None]:
    needs_prototypes = ctx.needs_input_grad[1]
    saved = ctx.saved_tensors  # once: activation checkpointing gives them no second time
    values = saved[2]
    grad_values = torch.zeros_like(values) if grad_values is None else grad_values
    grad_distances = values.new_zeros(values.shape[:2]) if grad_distances is None else grad_distances
    grads = gradient(grad_values, grad_distances, *saved, ctx.temperature, needs_prototypes)
    return grads[0], grads[1] if needs_prototypes else None, None


_OPERATOR = _library.define(
    "memory_attention",
    Definition(_SCHEMA, memory_attention_reference, _fake),
    Definition(_SCHEMA_BACKWARD, memory_attention_backward_reference, _fake_backward),
    Autograd(_setup_context, _backward),
    _formula,
)
_OPERATOR_SUMS = _library.define("prototype_sums", Definition(_SCHEMA_SUMS, prototype_sums_reference, _fake_sums))


def _example(g: torch.Generator) -> dict[str, Any]:
    return {"tokens": normal(g, 5, 3, 70), "prototypes": normal(g, 3, 9, 70), "temperature": 100.0}


def _example_sums(g: torch.Generator) -> dict[str, Any]:
    return {"tokens": normal(g, 5, 3, 70), "indices": torch.randint(9, (5, 3), generator=g), "k": 9}


@_OPERATOR.public(differentiable=("tokens", "prototypes"), example=_example)
def memory_attention(
    tokens: Tensor, prototypes: Tensor, temperature: float | None = None, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor, Tensor]:
    """Let each token choose, or softly mix, the prototypes of its own bank.

    Args:
        tokens: (B, m, d), one token per bank. float16, bfloat16, float32 or float64.
        prototypes: (m, k, d), k >= 1. Same device as `tokens`; of two dtypes the wider one is used.
        temperature: None takes the nearest prototype (the lowest index on ties), with the gradient of the values
            passed straight through to the tokens. A number above 0 mixes them by
            softmax(-|t - p|^2 / temperature), differentiable in both inputs.
        backend: `auto`, `cpp`, `triton` or `reference`.

    Returns:
        values (B, m, d); indices (B, m) int64 of the nearest prototype; distances (B, m), the squared distance to it,
        differentiable in tokens and prototypes. Sums are taken in float32 (float64 for float64).

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        RuntimeError: a backend asked for by name that cannot run here.
    """
    _check.tensor("memory_attention", "tokens", tokens, ("B", "m", "d"))
    m, d = tokens.shape[1:]
    _check.tensor("memory_attention", "prototypes", prototypes, (m, "k", d), like=tokens)
    if prototypes.shape[1] < 1:
        raise ValueError(f"memory_attention: prototypes must hold k >= 1 vectors a bank, got {prototypes.shape[1]}")
    if temperature is not None:
        temperature = _check.positive("memory_attention", "temperature", temperature)
    dtype = torch.promote_types(tokens.dtype, prototypes.dtype)
    op = _backend.select("memory_attention", backend, tokens.device, dtype)
    values, indices, distances, _ = op(tokens.to(dtype), prototypes.to(dtype), temperature)
    return values, indices, distances


@_OPERATOR_SUMS.public(example=_example_sums)
def prototype_sums(tokens: Tensor, indices: Tensor, k: int, *, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """Count and sum, bank by bank, the tokens that chose each prototype: what the codebook's moving average needs.

    Args:
        tokens: (B, m, d); float16, bfloat16, float32 or float64.
        indices: (B, m) int64 in [0, k), as `memory_attention` returns them.
        k: prototypes a bank, at least 1.
        backend: `auto`, `cpp`, `triton` or `reference`.

    Returns:
        counts (m, k) and sums (m, k, d), float32 (float64 for float64 tokens), without gradient; summed over the
        batch in a fixed order.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        RuntimeError: a backend asked for by name that cannot run here; on a CPU, an index outside of [0, k).
    """
    _check.tensor("prototype_sums", "tokens", tokens, ("B", "m", "d"))
    _check.tensor("prototype_sums", "indices", indices, tuple(tokens.shape[:2]), dtypes=(torch.int64,), like=tokens)
    k = plain(k)
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"prototype_sums: k must be an int of at least 1, got {k!r}")
    op = _backend.select("prototype_sums", backend, tokens.device, tokens.dtype)
    counts, sums = op(tokens.detach(), indices, k)
    return counts, sums
