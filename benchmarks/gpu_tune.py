"""Time the block sizes that the Triton kernels could use: `python benchmarks/gpu_tune.py [--rehearse]`.

Prints, for each operator at the published size, CUDA-graph replays of every choice in microseconds, the one in use
first. The winner belongs into kernels/ by hand: a fixed choice needs no timing at run time, which would wait for the
GPU and could not be captured in a graph.
"""

from __future__ import annotations

import sys
from unittest import mock

from gpu_bench import REHEARSE, WORKLOADS, graph_time, prepare  # it says whether kernels are interpreted

# isort: split
from ppl_fast.kernels import link_heatmap, link_heatmap_backward, memory_attention, memory_attention_backward

DRAW = next(w for w in WORKLOADS if w.op == "link_heatmap")
ATTEND, SOFT = [w for w in WORKLOADS if w.op == "memory_attention"][:2]


def space():
    """(workload, whether its forward alone, module, what is changed, its values: the one in use first)."""
    yield DRAW, True, link_heatmap, "TILE", [link_heatmap.TILE, *link_heatmap.TILES]
    tiles = [lambda _, tile=tile: tile for tile in ((8, 1), (16, 2), (16, 4), (32, 4), (32, 8))]
    yield DRAW, False, link_heatmap_backward, "tile_for", [link_heatmap_backward.tile_for, *tiles]
    used = memory_attention.HARD
    blocks = [{**used, "BLOCK_T": t, "BLOCK_D": d} for t in (4, 8, 16) for d in (32, 64, 128)]
    yield ATTEND, True, memory_attention, "HARD", [used, *blocks]
    used = memory_attention_backward.HARD
    blocks = [{**used, "BLOCK_T": t, "num_warps": w} for t in (1, 2, 8) for w in (4, 8)]
    yield ATTEND, False, memory_attention_backward, "HARD", [used, *blocks]
    used = memory_attention.SUMS
    yield ATTEND, False, memory_attention, "SUMS", [used, *({**used, "CHUNK": c} for c in (32, 128))]
    used = memory_attention.SOFT
    blocks = [{**used, "BLOCK_D": d, "num_warps": w} for d in (32, 64) for w in (4, 8)]
    yield SOFT, True, memory_attention, "SOFT", [used, *blocks]


def main() -> int:
    failed = False
    for workload, forward_alone, module, name, choices in space():
        print(f"\n{workload.op} {workload.label}, {'forward' if forward_alone else 'forward + backward'}, {name}")
        for choice in choices[: 2 if REHEARSE else None]:
            spelled = choice(120) if callable(choice) else choice
            with mock.patch.object(module, name, choice):
                try:
                    forward, total = prepare(workload, "triton", workload.tiny if REHEARSE else workload.make)
                    call = forward if forward_alone else total
                    call()
                    print(f"  {graph_time(call) or 0:8.2f}  {spelled}", flush=True)
                except Exception as error:  # a choice that does not fit is an answer, too, but not in a rehearsal
                    failed |= REHEARSE
                    print(f"  does not run ({type(error).__name__}: {str(error).splitlines()[0]})  {spelled}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
