"""How every Triton kernel here is launched."""

import torch
import triton
from triton.runtime import interpreter

COMPILER = {"enable_fp_fusion": True}  # multiply-adds, whatever the default of the Triton at hand


def launch(kernel, programs: int, *arguments, **options) -> None:
    """Run `programs` instances of `kernel` on the device of its first argument, a tensor, and on its current stream.

    `options` are the kernel's constants and Triton's own (`num_warps`). No synchronisation and no allocation of its
    own: launches can be captured in a CUDA graph once the kernel is compiled, which the first call does.
    """
    if programs:
        with torch.cuda.device_of(arguments[0]):  # does nothing for a CPU tensor, which the interpreter takes
            kernel[(programs,)](*arguments, **options, **COMPILER)


def precision(tensor: torch.Tensor) -> str:
    """How tl.dot is to multiply float32: in three tf32 products, or plainly before sm_80, which has no tf32."""
    old = tensor.is_cuda and torch.cuda.get_device_capability(tensor.device) < (8, 0)
    return "ieee" if old else "tf32x3"


def _let_the_interpreter_count() -> None:
    """Since NumPy 2.4, int() refuses arrays of one element, which is what the interpreter's scalars are."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda scalar: int(scalar.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if triton.knobs.runtime.interpret:
    _let_the_interpreter_count()
