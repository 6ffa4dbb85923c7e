"""Triton kernels, one file an operator; installed as ppl_fast.kernels and imported lazily."""
