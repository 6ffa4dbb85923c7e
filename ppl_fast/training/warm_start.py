"""A model that begins where another one ended: what fits is taken over, what is new is said."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from ppl_fast._messages import listed
from ppl_fast.models import MODELS, KeypointModel
from ppl_fast.models.blank import blank
from ppl_fast.models.checkpoint import read_config
from ppl_fast.options import migration
from ppl_fast.options.footage import AUTO, MOVING
from ppl_fast.training.config import TrainConfig
from ppl_fast.training.run import FRAMING, find_model, load_framing, load_model, training_of

LINKS = "link_parameters"  # one a pair of keypoints i < j, row by row
# Options of a training that say how its model learns best, and nothing of data and machine. Masks of its own images are
# none, but what moves is found in others too.
LEARNING = (
    "steps", "batch_size", "lr", "weight_decay", "betas", "warmup_steps", "schedule", "clip_norm", "flip",
    "channels_last", "masks",
)  # fmt: skip


def options_of(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Architecture and options of a trained model; and how it learned and what it sees, as options of `TrainConfig`.

    Args:
        path: as for `load_model`.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is damaged.
    """
    architecture, options = migration.resolve(*read_config(find_model(path)))
    if architecture in MODELS:  # those that a file need not have
        options = MODELS[architecture].Config.from_dict(options).to_dict()
    seen = asdict(load_framing(path))
    named = dict(zip(FRAMING, ("fit", "crop", "margin", "turn"), strict=True))
    assert set(named) <= {field.name for field in fields(TrainConfig)}
    trained = training_of(path)
    given = {name: trained[name] for name in LEARNING if name in trained}
    config = TrainConfig(**given)  # by which lists of a file are what options are
    learning = {name: getattr(config, name) for name in given}
    if learning.get("masks") not in (AUTO, MOVING):
        learning.pop("masks", None)
    return architecture, options, learning | {name: seen[attribute] for name, attribute in named.items()}


@torch.no_grad()
def warm_start(model: KeypointModel, path: str | os.PathLike[str]) -> str:
    """Take over the weights of a trained model as far as they fit.

    Tensors of one shape are taken as they are. Where the number of keypoints differs, those that have a row or column
    a keypoint are taken for the first keypoints, and links by the pair that they join; the rest stays as it was drawn.

    Args:
        model: as built, on the CPU.
        path: of the trained model, as for `load_model`.

    Returns:
        What was taken over and what is new, in a sentence.

    Raises:
        FileNotFoundError, ValueError: there is no model, it is damaged, or nothing in it fits, or not the whole of a
            prior that is to be held.
    """
    source = load_model(path)
    counts = source.config["num_keypoints"], model.config["num_keypoints"]
    old, new = source.state_dict(), model.state_dict()
    whole, part, fresh = [], [], []
    for name, tensor in new.items():
        if name in old and old[name].shape == tensor.shape:
            tensor.copy_(old[name])
            whole.append(name)
        elif name in old and _takes_over(name, tensor, old[name], counts):
            part.append(name)
        else:
            fresh.append(name)
    if not whole:
        raise ValueError(f"train: {path} has nothing that a {type(model).__name__} of these options could begin from")
    lacking = [name for name in part + fresh if name == LINKS or name.startswith("memory.")]
    if lacking and getattr(model.settings, "hold_prior", False):
        raise ValueError(f"train: hold_prior needs the prior of {path} whole, and does not have {listed(lacking)}")
    told = f"from {path}: {len(whole)} of {len(new)} tensors are taken over"
    if part:
        told += f"; {counts[0]} keypoints become {counts[1]}, the first {min(counts)} of which keep {listed(part)}"
    return told + (f"; new are {listed(fresh)}" if fresh else "")


@torch.no_grad()
def reorder(model: KeypointModel, order: Sequence[int]) -> None:
    """Give a model's keypoints other numbers, and leave it otherwise as it is: keypoint i is the one that was order[i].

    Args:
        model: on the CPU.
        order: of all N keypoints.
    """
    number, rows = model.settings.num_keypoints, torch.as_tensor(order)
    another = number - 1 if number > 2 else number + 1  # to see which axes have an entry a keypoint
    others = blank(type(model), model.config | {"num_keypoints": another}, "train").state_dict()
    for name, tensor in model.state_dict().items():
        if name == LINKS:
            first, second = torch.tensor([*combinations(range(number), 2)]).T
            weights = tensor.new_zeros(number, number)
            weights[first, second] = weights[second, first] = tensor
            tensor.copy_(weights[rows[first], rows[second]])
            continue
        found = tensor
        for axis, (length, other) in enumerate(zip(tensor.shape, others[name].shape, strict=True)):
            found = found.index_select(axis, rows) if length != other else found
        tensor.copy_(found)


def _takes_over(name: str, tensor: Tensor, found: Tensor, counts: tuple[int, int]) -> bool:
    """Copy what two tensors of different numbers of keypoints have in common; False where they differ otherwise."""
    if name == LINKS:
        places = [{pair: place for place, pair in enumerate(combinations(range(count), 2))} for count in counts]
        if (len(found), len(tensor)) != tuple(map(len, places)):
            return False
        both = [pair for pair in places[0] if pair in places[1]]
        tensor[[places[1][pair] for pair in both]] = found[[places[0][pair] for pair in both]].to(tensor.dtype)
        return True
    if found.ndim != tensor.ndim:
        return False
    lengths = list(zip(found.shape, tensor.shape, strict=True))
    if any(before != now and (before, now) != counts for before, now in lengths):
        return False
    part = tuple(slice(min(pair)) for pair in lengths)
    tensor[part] = found[part].to(tensor.dtype)
    return True
