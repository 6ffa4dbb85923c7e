"""From checkpoints of the published PPL and AutoLink to our models, and back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ppl_fast._messages import listed, short
from ppl_fast.models import MODELS, KeypointModel, LinkModel, registry
from ppl_fast.models.blocks import accepted
from ppl_fast.models.perceptual import PerceptualLoss
from ppl_fast.models.weights import check_finite, check_kind
from ppl_fast.options import migration
from ppl_fast.published import archives
from ppl_fast.published.layouts import LAYOUTS, VGG, layout_of
from ppl_fast.published.pickles import Held, StandIn

OWN = "ppl_fast."  # starts the names of our own classes
LONGEST = 4096  # characters of a module's name


class Checkpoint(NamedTuple):
    """What a checkpoint says, before a model is made of it."""

    where: str  # names it in errors
    architecture: str  # a name in `ppl_fast.models.MODELS`
    state: dict[str, Tensor]
    options: dict[str, Any]  # of our config
    own: bool  # whether `state` has our names and order of coordinates already


def load(cls: type[LinkModel] | None, source: Any, **options: Any) -> LinkModel:
    """Build our model from a checkpoint of the published code, without running anything that is in it.

    Args:
        cls: `PPL` or `AutoLink`; None takes the one that the checkpoint is of.
        source: a path, such as of PPL's `checkpoint_latest.pth` (a pickled module) or AutoLink's Lightning checkpoint;
            a state dict in the published names; or a published module in memory.
        options: of the model's config, before what the checkpoint says. Numbers of keypoints, memory banks and layers
            and all widths follow from its shapes; thickness, link factor and masking from the module's attributes or
            from the hyper-parameters. A bare state dict has none of those: without an option they are the published
            ones, and a warning names them.

    Returns:
        The model, in training mode. Keypoints are (x, y). Where the checkpoint has the VGG16 weights of the perceptual
        loss, the model has them too.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: neither a path, a state dict nor a module.
        ValueError: the sentence names the source and what is refused, missing or wrong.
    """
    found = read_checkpoint(source)
    model = build(cls, found, **options)
    if taken := assumed(found, options):
        told = ", ".join(f"{name}={getattr(model.settings, name):g}" for name in taken)
        warnings.warn(f"{found.where} does not hold all options: took the published {told}", stacklevel=3)
    return model


def assumed(found: Checkpoint, options: Mapping[str, Any]) -> list[str]:
    """Options that neither the checkpoint nor `options` hold, for which the published defaults are taken."""
    if found.own:
        return []
    layout = layout_of(MODELS[found.architecture])
    known = found.options | layout.sizes(found.state) | dict(options)
    return [name for name in layout.options.values() if name not in known]


def build(cls: type[LinkModel] | None, found: Checkpoint, **options: Any) -> LinkModel:
    """`load` of a checkpoint that was read already."""
    held, asked = MODELS[found.architecture], cls or LinkModel
    model_class = registry.narrower(asked, held)
    if model_class is None:
        raise ValueError(
            f"{found.where}: expected {_a(asked)} checkpoint, got one of {_a(held)}: "
            f"load it with ppl_fast.{held.__name__}"
        )
    try:
        sizes = {} if found.own else layout_of(held).sizes(found.state)
        options = sizes | found.options | options
        with torch.device("meta"):
            blank = model_class(**options)
    except (KeyError, IndexError) as error:
        raise ValueError(f"{found.where}: not a whole state dict of {_a(held)}: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{found.where}: {error}") from error
    check(found.where, found.state, blank, found.own)
    model = model_class(**options)
    model.load_state_dict(found.state if found.own else converted(found.state, model, found.where))
    return model


def check(where: str, state: dict[str, Tensor], model: LinkModel, own: bool = False) -> None:
    """Check that every entry of a published state dict is there, of its shape in `model`, and no other.

    Args:
        where: the source, for messages.
        state: the published state dict, or with `own` one of ours.
        model: what it is for.
        own: whether `state` has our names.

    Raises:
        ValueError: the sentence names `where` and what is missing, unexpected or of another shape.
    """
    layout = layout_of(type(model))
    wanted = accepted(model, state) if own else layout.to_published(model)
    expected, given = (
        {key: tuple(value.shape) for key, value in entries.items() if not key.startswith(VGG)}
        for entries in (wanted, state)
    )
    if own and given.get("alpha") == (1,):  # the parameter of a pickled module; state dicts have a scalar
        given["alpha"] = ()
    missing = [key for key in expected if key not in given and key not in layout.optional]
    surplus = [key for key in given if key not in expected]
    both = [key for key in expected if key in given and key != layout.coordinates]
    wrong = [f"{key} {given[key]} instead of {expected[key]}" for key in both if given[key] != expected[key]]
    if missing or surplus or wrong:
        faults = _some("; missing", missing) + _some("; unexpected", surplus) + _some("; of another shape", wrong)
        raise ValueError(f"{where}: not a state dict of the published {layout.model.__name__}{faults}")
    for key in both:
        check_kind(where, key, state[key].dtype, wanted[key].dtype)
        check_finite(where, key, state[key])


def converted(state: dict[str, Tensor], model: LinkModel, where: str) -> dict[str, Tensor]:
    """A checked published state dict as one for `model`, which takes its VGG16 weights where both have them."""
    s = model.settings
    vgg = {key: value for key, value in state.items() if key.startswith(VGG)}
    if vgg and s.reconstruction_loss == "perceptual" and s.perceptual == "vgg16":
        loss = PerceptualLoss("vgg16")
        loss.load_state(vgg, where)
        model._perceptual[:] = [loss.eval()]
    return layout_of(type(model)).from_published(state, s)


def state_dict(model: LinkModel) -> dict[str, Tensor]:
    """A state dict of `PPL` or `AutoLink` in the published names and order of coordinates, as copies.

    The published code's module loads it, provided that it has the same sizes (the published code fixes all but the
    number of keypoints). `vgg_loss.*` is there where the model has loaded VGG16 weights; else load with strict=False:
    the published module has fetched its own. Of the link parameters, the published code reads the upper triangle; the
    rest is 0. The thickness is no part of it.

    Raises:
        ValueError: a model with an option that the published code does not have.
    """
    layout = layout_of(type(model))
    for name, only in layout.only.items():
        value = getattr(model.settings, name, only)
        if value != only:
            raise ValueError(
                f"{type(model).__name__}: the published code has no {name}={value!r}; "
                f"only a model with {name}={only!r} has a published state dict"
            )
    return layout.to_published(model)


def read_checkpoint(source: Any) -> Checkpoint:
    """What a path, state dict or published module says; see `load`."""
    where = "published state dict"
    if isinstance(source, str | os.PathLike):
        where = os.fspath(source)
        source = archives.read(source)
    if isinstance(source, nn.Module):
        fields = [vars(module) for module in source.modules()]
        return _checkpoint(where, source.state_dict(), [*fields, fields[0].get("_hparams")])
    if isinstance(source, StandIn):
        return _from_stand_in(where, source)
    if not isinstance(source, Mapping):
        raise TypeError(
            f"{where}: expected a module, a state dict or a Lightning checkpoint, got {type(source).__name__}"
        )
    return _checkpoint(where, source.get("state_dict", source), [source.get("hyper_parameters")])


def _from_stand_in(where: str, root: StandIn) -> Checkpoint:
    """A pickled module: the published one, or ours, be it inside of our `PosePriorLearner`."""
    if root.kind.startswith(f"{OWN}published."):
        root = _entry(where, _entry(where, root, "_modules"), "model")
    if not isinstance(root, StandIn):
        raise ValueError(f"{where}: expected a module inside of a PosePriorLearner, got a {type(root).__name__}")
    if not root.kind.startswith(OWN):
        state, fields = _walk(where, root)
        return _checkpoint(where, state, [*fields, fields[0].get("_hparams")])
    model = registry.find(root.kind.rpartition(".")[2])
    if model is None:
        known = " or ".join(layout.model.__name__ for layout in LAYOUTS)
        raise ValueError(f"{where}: expected a {known} module, got a {short(root.kind)}")
    settings = _fields(_entry(where, root, "settings"))
    options = {key: _plain(where, key, value) for key, value in settings.items() if key not in model.Config.machine}
    architecture, options = migration.resolve(model.architecture, options)
    return Checkpoint(where, architecture, _tensors(where, _walk(where, root)[0]), options, own=True)


def _checkpoint(where: str, state: Any, fields: list[Any]) -> Checkpoint:
    names = {name for layout in LAYOUTS for name in layout.options}
    given: dict[str, Any] = {}
    for values in fields:
        given |= {key: _plain(where, key, value) for key, value in _fields(values).items() if key in names}
    state = _tensors(where, state)
    layout = next((layout for layout in LAYOUTS if layout.matches(state)), None)
    if layout is None:
        known = " nor ".join(f"{_a(item.model)} ({'*, '.join(item.signs)}*)" for item in LAYOUTS)
        raise ValueError(f"{where}: neither {known} state dict{_some(', it has', sorted(state))}")
    options = {ours: given[published] for published, ours in layout.options.items() if published in given}
    return Checkpoint(where, layout.architecture, state, options, own=False)


def _tensors(where: str, state: Any) -> dict[str, Tensor]:
    """The state dict with plain tensors."""
    if not isinstance(state, Mapping):
        raise ValueError(f"{where}: its state_dict must be a mapping, got {type(state).__name__}")
    found = {key: value.tensor if isinstance(value, Held) else value for key, value in state.items()}
    for key, value in found.items():
        if not isinstance(key, str):
            raise ValueError(f"{where}: expected names in its state_dict, got one of type {type(key).__name__}")
        if not isinstance(value, Tensor):
            raise ValueError(f"{where}: expected a tensor for {short(key)}, got {type(value).__name__}")
    return found


def _fields(holder: Any) -> Mapping[str, Any]:
    """The attributes or items of a stand-in, the items of a mapping, or nothing."""
    found = holder.state if isinstance(holder, StandIn) else holder
    return found if isinstance(found, Mapping) else {}


def _plain(where: str, key: Any, value: Any) -> Any:
    """A value of an option, which must be of a type whose text cannot grow beyond the file."""
    if not isinstance(value, int | float | str | None):
        raise ValueError(f"{where}: expected a number for {short(key)}, got {type(value).__name__}")
    return value


def _walk(where: str, root: StandIn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The state dict of a pickled module, and the attributes of it and of each module inside it."""
    state: dict[str, Any] = {}
    fields, seen, waiting = [], set(), [("", root)]
    while waiting:
        prefix, module = waiting.pop(0)
        if len(prefix) > LONGEST:  # a pickle holds a name once, however often it is in others
            raise ValueError(f"{where}: {short(prefix)} is no name of a module, got {len(prefix)} characters")
        if not isinstance(module, StandIn) or id(module) in seen:
            raise ValueError(f"{where}: {short(prefix)} is no module, or is inside of itself or there twice")
        seen.add(id(module))
        children = _fields(_entry(where, module, "_modules"))
        hidden = module.state.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, set) else set()
        for group in ("_parameters", "_buffers"):
            values = _fields(_entry(where, module, group)).items()
            state |= {f"{prefix}{key}": value for key, value in values if value is not None and key not in hidden}
        fields.append(module.state)
        waiting += [(f"{prefix}{name}.", child) for name, child in children.items() if child is not None]
    return state, fields


def _entry(where: str, holder: Any, name: str) -> Any:
    """An entry that a pickled module must have: a stand-in, or a dict by names."""
    found = _fields(holder).get(name)
    if not isinstance(found, StandIn) and not (isinstance(found, dict) and all(isinstance(key, str) for key in found)):
        raise ValueError(f"{where}: expected a pickled module with {name}, got {type(holder).__name__} without")
    return found


def _some(what: str, items: list[str]) -> str:
    """`what: a, b, c, d and 3 more`, or nothing."""
    return f"{what}: {listed([*map(short, items)])}" if items else ""


def _a(model: type[KeypointModel]) -> str:
    return f"{'an' if model.__name__[0] in 'AEIO' else 'a'} {model.__name__}"
