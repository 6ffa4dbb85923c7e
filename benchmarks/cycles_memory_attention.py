"""memory_attention for the cycle model: B = 64 tokens of m = 34 banks, d = 512; k = 16 prototypes unless said."""

from cycle_model import Workload

# On tensor cores steps of 128 prototypes, in 32 pieces of d, of which two set out first. Loops of trip 0 take rows that
# are not aligned. An H100 has 7 shares of five steps, the backward 11 of three in two turns of 17 banks.
ROW, STEP = (2, 0), (2, 0, 32, 0)
# 2.3 pairs of a token and 256 prototypes are compared, as counted on an H100.
SCREENED = (8, *ROW, 5, *STEP, *(8, 4, 0, 0, 0.29, 0, 2), *(0, 2))
# 0.75 pairs of a token and a step are compared.
SOFT_SCREENED = (8, *ROW, 5, *STEP, 8, *((0, 0, 0.19, 0, 2) * 4), *(4, 16), *(0, 2))
# The backward knows the least distance: 1.5 pairs of a token are compared in all.
WEIGHTS = (8, *ROW, 3, *STEP, *(8, 4, 0.012, *ROW, *ROW))
PRODUCTS = (8, *ROW, 3, *STEP, *(8, 0, 2))
PROTOTYPES = (1, 4, *(4, 8, 8), *(8, 4, 0.006, 4))
# Soft mode by differences, in whole tiles: 128 columns at a time; the nearest of 16 prototypes has no loop of its own.
CYCLES = [
    Workload(
        "memory_attention forward", "memory_attention_cuda", "memory_attention_fwd_few_kernelIf", 1088,
        (0, 4, 2, 4), 10.0e6,
    ),
    Workload(
        "memory_attention backward, tokens", "memory_attention_cuda", "memory_attention_bwd_tokens_kernelIf", 8704,
        (1,), 14.5e6,
    ),
    Workload(
        "memory_attention backward, prototypes", "memory_attention_sums_cuda", "sums_kernelIffLb1E", 2176,
        (1, 1, 1, 1), 6.7e6,
    ),
    Workload("prototype_sums", "memory_attention_sums_cuda", "sums_kernelIffLb0E", 2176, (1, 1, 1, 1), 5.6e6),
    Workload(
        "memory_attention soft forward", "memory_attention_soft_cuda", "soft_fwd_kernelIfLb1E", 1088, (1, 4, 4), 10.0e6
    ),
    Workload(
        "memory_attention soft backward, tokens", "memory_attention_soft_backward_cuda", "soft_bwd_tokens_kernelIfLb1E",
        1088, (1, 4, 0, 4, 1), 19.3e6,
    ),
    Workload(
        "memory_attention soft backward, prototypes", "memory_attention_soft_backward_cuda",
        "soft_bwd_prototypes_kernelIfLb1E", 2176, (2,), 11.4e6, {0: 1},
    ),
    Workload(
        "memory_attention soft forward, k = 4,096", "memory_attention_soft_tensor_cuda", "soft_tensor_kernel", 1904,
        SOFT_SCREENED, 321e6,
    ),
    Workload(
        "memory_attention soft forward, k = 4,096, sum of shares", "memory_attention_soft_tensor_cuda",
        "soft_combine_kernel", 8704, (0, 1, 0, 1, 4, *ROW), 36e6,
    ),
    *(
        Workload(
            f"memory_attention soft backward, k = 4,096, {name}", "memory_attention_soft_tensor_backward_cuda",
            f"soft_tensor_bwd_{kernel}", warps, trips, size,
        )
        for name, kernel, warps, trips, size in (
            ("weights", "weights", 2992, WEIGHTS, 326e6),
            ("products", "products", 2992, PRODUCTS, 357e6),
            ("tokens", "tokens", 2992, (3, 8, 4, 16), 392e6),
            ("sum of shares", "combine", 8704, (1, 0, 0, 0, 0, 4, 4), 85e6),
            ("prototypes", "prototypes", 17408, PROTOTYPES, 651e6),
        )
    ),
    Workload(
        "memory_attention forward, k = 4,096", "memory_attention_screen_cuda", "screen_kernelIf", 1904, SCREENED, 290e6
    ),
    Workload(
        "memory_attention forward, k = 4,096, comparison of shares", "memory_attention_cuda", "compare_kernelIf", 8704,
        (1, 1, 1), 9.2e6,
    ),
]  # fmt: skip
