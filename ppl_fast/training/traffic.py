"""What processes that train together exchange in a step, by arithmetic; docs/scaling.md has the tables."""

from torch import nn

from ppl_fast.models.hierarchical_memory import HierarchicalMemory


def exchanged(model: nn.Module, sync_batchnorm: bool = False, accumulate: int = 1) -> dict[str, int]:
    """Bytes that each process brings into the exchanges of one step, by kind; models on torch's meta device will do.

    Args:
        model: as it is trained.
        sync_batchnorm: as `TrainConfig.sync_batchnorm`.
        accumulate: as `TrainConfig.accumulate`.

    Returns:
        "gradients", summed over all once a step; "memory", the counts and sums of the memory's vectors, and
        "batchnorm", means and variances with their gradients, summed at every part; "buffers", which the first process
        sends to all once a step.
    """
    memories = [module for module in model.modules() if isinstance(module, HierarchicalMemory) and not module.held]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)] * sync_batchnorm
    return {
        "gradients": sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad),
        "memory": accumulate * sum(memory.sizes.nbytes + memory.sums.nbytes for memory in memories),
        "batchnorm": accumulate * sum(2 * 2 * 4 * norm.num_features for norm in norms),
        "buffers": sum(buffer.nbytes for buffer in model.buffers()),
    }


def ring_seconds(size: int, processes: int, bandwidth: float, latency: float = 0.0) -> float:
    """Seconds that a ring takes to sum a tensor over processes: 2 (P - 1) rounds of a P-th of it each.

    Args:
        size: bytes.
        processes: P, at least 1.
        bandwidth: bytes a second of the slowest connection in the ring.
        latency: seconds until a round's first byte arrives.
    """
    return 2 * (processes - 1) * (size / processes / bandwidth + latency)
