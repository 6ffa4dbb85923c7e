"""Options with bounds: what is taken, and made plain."""

import dataclasses

import numpy as np
import pytest

from ppl_fast._messages import hint, nearest
from ppl_fast._options import as_meant, check, integer, option
from ppl_fast.models import MODELS, PPLConfig
from ppl_fast.models.translator import TRANSLATORS
from ppl_fast.options import CONFIGS
from ppl_fast.training import TrainConfig


@dataclasses.dataclass(frozen=True)
class Some:
    count: int = option(1, "a number", low=1)
    share: float = option(0.5, "a share", high=1)
    drawn: bool = option(False, "a switch")
    kind: str = option("a", "a choice", choices=("a", "b"))
    path: str | None = option(None, "a file")
    pair: tuple[int, int] = option((1, 2), "checked by the class itself")

    def __post_init__(self):
        check("Some", self)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"count": np.int64(16)}, 16),
        ({"count": np.uint8(16)}, 16),
        ({"share": np.float32(0.25)}, 0.25),
        ({"share": np.float64(0.1)}, 0.1),
        ({"share": np.int32(1)}, 1.0),
        ({"share": 1}, 1.0),
        ({"drawn": np.bool_(True)}, True),
        ({"kind": np.str_("b")}, "b"),
    ],
)
def test_numbers_of_numpy_become_plain(given, expected):
    (value,) = (getattr(Some(**given), name) for name in given)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"count": np.float32(2)}, TypeError, r"count must be int, got 2.0 \(float\)"),
        ({"count": np.bool_(True)}, TypeError, r"count must be int, got True \(bool\)"),
        ({"count": np.int64(0)}, ValueError, "count must be at least 1, got 0"),
        ({"share": np.float64("nan")}, ValueError, "share must be between 0 and 1, got nan"),
        ({"share": np.array([0.5])}, TypeError, "share must be float, got array"),
        ({"drawn": np.int64(1)}, TypeError, r"drawn must be bool, got 1 \(int\)"),
        ({"path": 3}, TypeError, "path must be str, got 3"),
    ],
)
def test_other_types_and_values_are_named(given, error, sentence):
    with pytest.raises(error, match=f"^Some: {sentence}"):
        Some(**given)


def test_models_and_training_take_them():
    config = PPLConfig(num_keypoints=np.int64(8), thickness=np.float32(1e-3)).to_dict()
    assert type(config["num_keypoints"]) is int and config["thickness"] == float(np.float32(1e-3))
    assert TrainConfig(lr=np.float64(1e-3), betas=(np.float32(0.5), 0.9)).betas == (0.5, 0.9)
    assert type(TrainConfig(betas=[np.float32(0.5), 0.9]).betas[0]) is float


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"kind": False}, {"kind": "off"}),
        ({"kind": True}, {"kind": True}),  # none of the choices: left to the check
        ({"share": "1e-3"}, {"share": 1e-3}),
        ({"count": "2e1", "share": "half"}, {"count": 20, "share": "half"}),
        ({"count": 2e1}, {"count": 20}),
        ({"count": 2.5}, {"count": 2.5}),
        ({"drawn": "off"}, {"drawn": False}),
        ({"pair": ["1e1", 2]}, {"pair": [10.0, 2]}),
        ({"other": "1e-3"}, {"other": "1e-3"}),
    ],
)
def test_options_are_what_was_written_in_yaml(written, meant):
    fields = [("kind", str, option("a", "a choice", choices=("a", "off")))]
    wider = dataclasses.make_dataclass("Wider", fields, bases=(Some,), frozen=True)
    found = as_meant(wider, written)
    assert found == meant and [type(value) for value in found.values()] == [type(value) for value in meant.values()]


def test_integers():
    assert integer("f", "n", np.int64(3), low=1) == 3 and type(integer("f", "n", np.int64(3), low=1)) is int
    for value in (0, 1.0, True, "3", None):
        with pytest.raises(ValueError, match=f"^f: n must be an integer of at least 1, got {value!r}$"):
            integer("f", "n", value, low=1)


def test_the_nearest_name():
    assert nearest("tickness", ["width", "thickness"]) == "thickness"
    assert hint("zzz", ["width"]) == "" and hint("zzz", ["width"], "; see it") == "; see it"


def test_options_name_what_models_have():
    assert {name: model.Config for name, model in MODELS.items()} == CONFIGS
    assert PPLConfig.__dataclass_fields__["translator"].metadata["choices"] == tuple(TRANSLATORS)
