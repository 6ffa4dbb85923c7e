"""Pickles of modules and state dicts, read without running what is in them.

`torch.load(weights_only=True)` is safe but does not read the published checkpoints: it knows no module classes, the
ones that it may be told of must exist and hold for the whole process, and it refuses the pickles inside of the format
that whole modules were saved in before torch 1.6. With `weights_only=False` and a restricted `pickle_module` it would,
but then that format's reader can be led to write files (by `dump_patches`) and to hand out memory that was never
filled. So `archives` reads the two formats, which are simple, and the unpickler here is Python's own with its two hooks
(see `ppl_fast._pickles`).

It admits the names in `_find` alone. Nothing that it hands out has an effect when it is called, can be changed, or has
a method that an opcode could reach: storages are named by dtypes, tensors are built by `_tensor` with their bounds
checked and wrapped in `Held`, and every class is a `StandIn` that only keeps its state.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from ppl_fast._messages import short
from ppl_fast._pickles import OUTSIDE, RefusedError, RestrictedUnpickler, scan

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STORAGES.values()}
# The classes that have a stand-in: torch's layers, our models, and by name what the published code saves.
LAYERS = re.compile(
    r"torch\.nn\.modules\.[a-z]+\.[A-Z]\w+|ppl_fast\.(models|options|published)\.[a-z_]+\.[A-Z]\w+", re.ASCII
)
PUBLISHED = {
    "models.pose_prior_learner": {"PosePriorLearner", "Memory", "MixerLayer", "MLPBlock"},
    "models.modules": {"ResNetConditionalParameterRegressor", "ResNetReconstructor", "ResBlock", "TransposedBlock"}
    | {"DownBlock", "UpBlock"},
    "models.model": {"Model"},
    "models.encoder": {"Encoder", "Detector", "ResBlock", "TransposedBlock"},
    "models.decoder": {"Decoder", "DownBlock", "UpBlock"},
    "utils.losses": {"VGGPerceptualLoss"},
    "utils.loss": {"VGGPerceptualLoss"},
    "utils_.loss": {"VGGPerceptualLoss"},
    "argparse": {"Namespace"},
    "pytorch_lightning.utilities.parsing": {"AttributeDict"},
    "pytorch_lightning.callbacks.model_checkpoint": {"ModelCheckpoint"},
    "lightning.pytorch.utilities.parsing": {"AttributeDict"},
    "lightning.fabric.utilities.data": {"AttributeDict"},
    "lightning_fabric.utilities.data": {"AttributeDict"},
}
# Opcodes that torch.save does not write, and that look up or call by other ways than the unpickler's two hooks.
FOREIGN = OUTSIDE | {"INST", "OBJ", "NEWOBJ_EX", "READONLY_BUFFER", "BYTEARRAY8"}


class _Closed(type):
    """Of classes that a pickle can neither call nor change."""

    kind: str

    def __call__(cls, *_: Any, **__: Any) -> NoReturn:
        raise RefusedError(f"it calls the class {cls.kind}")

    def __setattr__(cls, name: str, value: Any) -> NoReturn:
        raise RefusedError(f"it sets an attribute of the class {cls.kind}")


class StandIn(metaclass=_Closed):
    """In place of an object of the class that `kind` names: its attributes, or a mapping's items, in `state`."""

    __slots__ = ("state",)
    state: dict[str, Any]
    kind = "StandIn"

    def __new__(cls, *arguments: Any) -> StandIn:
        """An empty one; what creates an object by calling its class with arguments is refused."""
        if arguments:
            raise RefusedError(f"it passes arguments to the class {cls.kind}")
        found = object.__new__(cls)
        found.state = {}
        return found

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise RefusedError(f"the state of a {self.kind} is a {type(state).__name__}")
        for key, value in state.items():
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str):
            raise RefusedError(f"an attribute of a {self.kind} is named by a {type(key).__name__}")
        self.state[key] = value


class Held:
    """A tensor, or a storage as a tensor of one dimension, whose methods a pickle cannot reach."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor):
        self.tensor = tensor

    def __setstate__(self, state: Any) -> NoReturn:
        raise RefusedError("it sets the state of a tensor")


class _Function:
    """A function that a pickle may call but not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise RefusedError("it sets an attribute of a function")


class _Items(dict[Any, Any]):
    """An OrderedDict without attributes, in which a state dict keeps only its modules' versions."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(storage: Held, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Held:
    """A view of a storage; all its elements lie within, and it has no more than the storage."""
    numbers = [offset, *size, *stride]
    if not isinstance(storage, Held) or any(type(number) is not int or number < 0 for number in numbers):
        raise RefusedError("it builds a tensor from something else than a storage and sizes")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count, length = math.prod(size), len(storage.tensor)
    if count > length or (count and last >= length):
        raise RefusedError(f"a tensor of shape {short(tuple(size))} does not fit in its storage of {length} elements")
    return Held(storage.tensor.as_strided(size, stride, offset))


def _parameter(data: Held, *_: Any) -> Held:
    if not isinstance(data, Held):
        raise RefusedError(f"it builds a parameter from a {type(data).__name__}")
    return data


FUNCTIONS = {
    "torch._utils._rebuild_tensor": _Function(_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": _Function(_parameter),
    "torch.Size": _Function(tuple),
    "torch.device": _Function(lambda kind, index=0: f"{kind:s}:{index:d}"),
    "collections.OrderedDict": _Function(_Items),
    "builtins.set": _Function(set),
    "__builtin__.set": _Function(set),
}


def _find(module: str, name: str) -> Any:
    """What a global name stands for: a dtype, a function or `StandIn`; None where it is refused."""
    kind = f"{module}.{name}"
    if module in ("torch", "torch.storage") and (dtype := STORAGES.get(name) or DTYPES.get(name)):
        return dtype
    return StandIn if name in PUBLISHED.get(module, ()) or LAYERS.fullmatch(kind) else FUNCTIONS.get(kind)


class _Unpickler(RestrictedUnpickler):
    def __init__(self, file: io.BytesIO, storage: Callable[[torch.dtype, str, int], Held] | None):
        super().__init__(file)
        self._storage = storage
        self._classes: dict[str, _Closed] = {}

    def admit(self, module: str, name: str) -> Any:
        """What stands for a name; a class of its own for each kind of stand-in."""
        kind, found = f"{module}.{name}", _find(module, name)
        if found is not StandIn:
            return found
        if kind not in self._classes:
            self._classes[kind] = _Closed(name, (StandIn,), {"__slots__": (), "kind": kind})
        return self._classes[kind]

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("module", _Closed() as found, *_):
                return found  # beside it stands its source code, which is not looked at
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count), *view) if count >= 0:
                if self._storage is not None and view in ([], [None]):
                    return self._storage(dtype, key, count)
        raise RefusedError("it refers to something outside of it that is no storage")


def load(file: io.BytesIO, storage: Callable[[torch.dtype, str, int], Held] | None = None) -> Any:
    """Unpickle the next object of a stream, after a look at its opcodes.

    Args:
        file: the stream.
        storage: gives the storage of a dtype, key and number of elements.

    Returns:
        Plain containers and numbers, with a `Held` for every tensor and a `StandIn` for every other object.

    Raises:
        RefusedError: a name or an opcode that no such file has.
        Exception: a broken pickle raises anything.
    """
    scan(file, FOREIGN, why=", which torch.save does not write")
    return _Unpickler(file, storage).load()
