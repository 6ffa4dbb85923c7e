"""Weights and options that would exhaust the machine, or that are no numbers to compute with: refused by the header."""

import json
import resource
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import MODEL, run_steps

from ppl_fast.models import PPL, ExtendedPPL, PPLConfig, blank
from ppl_fast.models.weights import Announced, read_header, read_tensors

SMALL = {
    "num_keypoints": 5, "image_size": 32, "memory_width": 16, "memory_hidden": 16, "memory_layers": 1,
    "memory_banks": 3, "memory_prototypes": 4, "regressor_base": 4, "translator_base": 4, "reconstruction_loss": "mse",
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    ExtendedPPL(**MODEL).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def rewritten(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["config"] |= changes
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"memory_width": 20000}, r"does not fit the model: expected shape \(.*20000"),
        ({"memory_prototypes": 2 * 10**7}, r"does not fit the model: expected shape \(4, 20000000, 16\)"),
        ({"memory_prototypes": 2**62}, "config.json: its options ask for tensors of impossible sizes"),
        ({"width": 1e300}, "config.json: its options ask for tensors of impossible sizes"),
        ({"memory_layers": 10**6}, "config.json: .*: memory_layers must be at most 1000, got 1000000"),
        ({"memory_decoder_layers": 10**6}, "memory_decoder_layers must be at most 1000"),
        ({"memory_layers": 3}, "encoder.2.* does not fit the model"),
        ({"image_size": 1 << 40}, "image_size must be at most 4096"),
        ({"num_keypoints": 10**6}, "num_keypoints must be at most 1024"),
        ({"mask_blocks": 10**9}, "mask_blocks must be at most 4096"),
        ({"num_keypoints": 10**400}, "num_keypoints must be at most 1024"),
        ({"thickness": 1e400}, "thickness must be a positive number, got inf"),
    ],
)
def test_options_of_another_size_are_refused_before_memory_is_taken(saved, changes, sentence):
    rewritten(saved, **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"^{saved}/(config.json|model.safetensors): .*{sentence.split(': ')[-1]}"):
        ExtendedPPL.from_pretrained(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_nothing_is_built_where_the_header_does_not_fit(saved, monkeypatch):
    rewritten(saved, memory_width=24)
    built = []
    init = ExtendedPPL.__init__
    monkeypatch.setattr(
        ExtendedPPL,
        "__init__",
        lambda self, **options: (init(self, **options), built.append(self.alpha.device.type))[0],
    )
    with pytest.raises(ValueError, match="does not fit the model"):
        ExtendedPPL.from_pretrained(saved)
    assert built == ["meta"]


def test_a_model_that_the_machine_cannot_train_is_refused(images, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"^train: a model of these options takes at least .* GB to train, this machine"
    ):
        run_steps(images, tmp_path / "run", 1, model={"memory_prototypes": 2**38})
    assert not (tmp_path / "run").exists()
    needed = sum(4 * p.nbytes for p in ExtendedPPL(**MODEL).parameters())
    needed += sum(b.nbytes for b in ExtendedPPL(**MODEL).buffers())
    monkeypatch.setattr(blank, "machine_memory", lambda: needed)
    blank.check_trainable(ExtendedPPL, MODEL, "train")
    monkeypatch.setattr(blank, "machine_memory", lambda: needed - 1)
    with pytest.raises(ValueError, match="takes at least"):
        blank.check_trainable(ExtendedPPL, MODEL, "train")


def test_published_options_are_far_from_every_bound():
    for name, value in PPLConfig().to_dict().items():
        most = PPLConfig.__dataclass_fields__[name].metadata["most"]
        assert not isinstance(value, int | float) or 16 * value <= most


def test_headers_say_what_files_hold(saved):
    state = load_file(saved / "model.safetensors")
    assert read_header(saved / "model.safetensors") == {
        name: Announced(tuple(value.shape), value.dtype) for name, value in state.items()
    }
    assert read_tensors(saved / "model.safetensors").keys() == state.keys()


def file_of(path, header, body=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    return path


def entry(shape=(2,), dtype="F32", place=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(place)}


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"a": entry((1 << 40,), place=(0, 4 << 40))}, "a of shape .* does not have as many bytes"),
        ({"a": entry((3,))}, "does not have as many bytes"),
        ({"a": entry((1 << 62, 1 << 62))}, "does not have as many bytes"),
        ({"a": entry((-2,), place=(0, -8))}, "a has no dtype, shape and place"),
        ({"a": entry((True, 2))}, "a has no dtype, shape and place"),
        ({"a": entry(dtype="X8")}, "a has no dtype, shape and place"),
        ({"a": entry(place=(8,))}, "a has no dtype, shape and place"),
        ({"a": [1]}, "a has no dtype, shape and place"),
        ({"a": entry(), "b": entry()}, "invalid offset"),
        ([1], "its header is no object"),
        (b"[" * 100_000, "nested deeper"),
        (b"", "a header of 0 bytes"),
    ],
)
def test_headers_that_are_refused(tmp_path, header, sentence):
    path = file_of(tmp_path / "a.safetensors", header, bytes(8))
    with pytest.raises(ValueError, match=f"^{path}: truncated or not a safetensors file .*{sentence}"):
        read_tensors(path)


def test_a_header_longer_than_the_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for content in (b"", b"abc", struct.pack("<Q", 1 << 63), struct.pack("<Q", 100) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="truncated or not a safetensors file"):
            read_header(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(saved, value):
    state = load_file(saved / "model.safetensors")
    state["alpha"].fill_(value)
    save_file(state, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors: alpha holds NaN or infinity"):
        ExtendedPPL.from_pretrained(saved)


def test_weights_that_become_infinite_in_the_model_are_named(saved):
    state = load_file(saved / "model.safetensors")
    state["alpha"] = torch.tensor(1e300, dtype=torch.float64)
    save_file(state, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors: alpha holds NaN or infinity"):
        ExtendedPPL.from_pretrained(saved)


def test_weights_of_another_kind_of_number_are_named(saved):
    whole = load_file(saved / "model.safetensors")
    for name, dtype in (("alpha", torch.int64), ("memory.codebook", torch.uint8), ("memory.idle", torch.float32)):
        save_file(whole | {name: whole[name].to(dtype)}, saved / "model.safetensors")
        with pytest.raises(
            ValueError, match=f"model.safetensors: {name} must hold numbers such as .*, got {str(dtype)[6:]}"
        ):
            ExtendedPPL.from_pretrained(saved)
    save_file({name: value.half() if value.is_floating_point() else value for name, value in whole.items()},
              saved / "model.safetensors")  # fmt: skip
    assert torch.equal(ExtendedPPL.from_pretrained(saved).state_dict()["alpha"], whole["alpha"])


def test_published_weights_are_held_to_the_same():
    state = PPL(**SMALL).to_published()
    with pytest.warns(UserWarning, match="does not hold all options"):
        assert PPL.from_published(state).settings.num_keypoints == 5
    name = next(name for name, value in state.items() if value.is_floating_point() and value.ndim)
    for spoilt, sentence in (
        (state[name].fill_(1) * float("nan"), "holds NaN or infinity"),
        (state[name].long(), "must hold numbers such as float32, got int64"),
    ):
        with pytest.raises(ValueError, match=f"published state dict: {name} {sentence}"):
            PPL.from_published(state | {name: spoilt})


@pytest.mark.parametrize(
    ("slot", "change", "sentence"),
    [
        ("exp_avg", lambda value: value * float("nan"), "holds NaN or infinity"),
        ("exp_avg", lambda value: value.long(), "must hold numbers such as float32, got int64"),
        ("exp_avg_sq", lambda value: -value - 1, "is negative"),
        ("step", lambda value: value * float("inf"), "holds NaN or infinity"),
        ("step", lambda value: value.repeat(2), "is none of Adam's step, exp_avg, exp_avg_sq"),
        ("exp_avg", None, "is there without alpha.exp_avg"),
    ],
)
def test_moments_that_are_none_are_named(images, tmp_path_factory, slot, change, sentence):
    base = tmp_path_factory.getbasetemp() / "moments_run"
    if not base.exists():
        run_steps(images, base, 1)
    path = base / "checkpoints/step_0000001/optimizer.safetensors"
    whole = load_file(path)
    spoilt = {key: value for key, value in whole.items() if key != f"alpha.{slot}"}
    save_file(spoilt | ({f"alpha.{slot}": change(whole[f"alpha.{slot}"])} if change else {}), path)
    try:
        with pytest.raises(ValueError, match=rf"optimizer.safetensors: alpha\.\w+ {sentence}.*; remove .*step_0000001"):
            run_steps(images, base, 2, resume=True)
    finally:
        save_file(whole, path)
