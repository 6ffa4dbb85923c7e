"""What is alive when a training step of the published configuration holds the most: megabytes by layer and operation.

`python benchmarks/alive.py [formula | nothing | layers | blocks]`, the published formulas or a value of the option
`recompute`: half a minute of one core. What kernels take for themselves, and what lies between blocks of memory, is not
seen here, but by `benchmarks/step.py`.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LEAST = 2e6  # bytes that are worth a line


class Alive(TorchDispatchMode):
    """A block in which tensors' memory is followed, but for that of some tensors which are there before.

    Attributes:
        now: bytes that are alive.
        most: the largest that was.
        then: where it came from, by layer and operation.
    """

    def __init__(self, *before: Tensor):
        super().__init__()
        self.now = self.most = 0
        self.then: Counter[str] = Counter()
        self.path: list[str] = []
        self._before = {tensor.untyped_storage()._cdata for tensor in before}
        self._live: dict[int, tuple[int, str]] = {}

    def name_layers(self, model: nn.Module, under: str) -> None:
        """Let the forward passes of a model say in which of its layers they are; `under` is its own name."""
        for name, module in model.named_modules(prefix=under):
            module.register_forward_pre_hook(lambda *_, name=name: self.path.append(name))
            module.register_forward_hook(lambda *_: self._left(), always_call=True)

    def _left(self) -> None:
        self.path.pop()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage(), str(function))
        if self.now > self.most:
            self.most, self.then = self.now, Counter()
            for size, where in self._live.values():
                self.then[where] += size
        return made

    def _take(self, storage: torch.UntypedStorage, function: str) -> None:
        key = storage._cdata
        if key in self._before or key in self._live or not storage.nbytes():
            return
        layer = self.path[-1] if self.path else "backward and optimizer"
        self._live[key] = storage.nbytes(), f"{layer}: {function.removeprefix('aten.').partition('.')[0]}"
        self.now += storage.nbytes()
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._live.pop(key)[0]


def main() -> None:
    sys.path.append(str(Path(__file__).parents[1] / "tests"))  # of the gate, which is not asked here
    from whole_model import FORMULA, ModelWorkload, Subject

    word = sys.argv[1] if sys.argv[1:] else "nothing"
    torch.set_num_threads(1)
    options = {} if word == FORMULA else {"recompute": word}
    subject = Subject(word if word == FORMULA else "cpp", ModelWorkload(4, options))
    found = [subject.model, *getattr(subject.model, "_perceptual", [])]
    models = dict(zip(("model", "perceptual"), found, strict=False))
    alive = Alive(*(tensor for each in models.values() for tensor in [*each.parameters(), *each.buffers()]))
    for name, each in models.items():
        alive.name_layers(each, name)
    with alive:
        subject.step()
        alive.most = 0  # gradients and Adam's averages are there from the first step on
        subject.step()
    for where, size in alive.then.most_common():
        if size >= LEAST:
            print(f"{size / 1e6:8.1f} MB  {where}")
    print(f"{alive.most / 1e6:8.1f} MB  in all")


if __name__ == "__main__":
    main()
