"""Options, and models on disk."""

import json
import sys

import pytest
import torch
from model_cases import TINY, pictures, tiny

from ppl_fast.models import PPL, ExtendedPPL, ExtendedPPLConfig, PPLConfig


def test_defaults_are_the_published_model():
    config = ExtendedPPLConfig().to_dict()
    published = {"memory_banks": 34, "memory_prototypes": 16, "memory_width": 512, "memory_layers": 4}
    published |= {"link_factor": 512, "link_start": -4, "head": "affine", "translator": "unet", "perceptual": "vgg16"}
    published |= {"memory_start": "published", "reseed_after": 0, "separation_weight": 0, "link_length_weight": 0}
    assert published.items() <= config.items() and PPLConfig().to_dict().items() <= config.items()


def test_config_round_trips_through_json():
    model = tiny()
    config = json.loads(json.dumps(model.config))
    assert ExtendedPPL(**config).config == config == model.config
    assert TINY.items() <= config.items()


def test_every_option_is_described():
    for config in (PPLConfig, ExtendedPPLConfig):
        lines = config.describe().splitlines()
        assert len(lines) == len(config().to_dict()) and all(len(line.split(": ", 1)[1]) >= 9 for line in lines)


BAD = [
    ({"tickness": 1e-3}, TypeError, "unknown option 'tickness'; did you mean 'thickness'?"),
    ({"zzz": 1}, TypeError, "unknown option 'zzz'$"),
    ({"num_keypoints": 1}, ValueError, "num_keypoints must be at least 2, got 1"),
    ({"num_keypoints": "16"}, TypeError, "num_keypoints must be int, got '16'"),
    ({"num_keypoints": True}, TypeError, "num_keypoints must be int, got True"),
    ({"image_size": 100}, ValueError, "image_size must be a multiple of 16, got 100"),
    ({"thickness": 0}, ValueError, "thickness must be a positive number, got 0"),
    ({"thickness": float("nan")}, ValueError, "thickness must be a positive number, got nan"),
    ({"thickness": "1e-3"}, TypeError, "thickness must be float, got '1e-3'"),
    ({"mask_ratio": 1.5}, ValueError, "mask_ratio must be between 0 and 1, got 1.5"),
    ({"boundary_weight": -1}, ValueError, "boundary_weight must be at least 0, got -1"),
    ({"head": "window"}, ValueError, "head must be one of affine, residual, position, got 'window'"),
    ({"map_stride": 3}, ValueError, "map_stride must be a power of two from 2 to .* = 16, got 3"),
    ({"map_stride": 32}, ValueError, "map_stride must be a power of two from 2 to .* = 16, got 32"),
    ({"link_start": float("inf")}, ValueError, "link_start must be finite, got inf"),
    ({"perceptual_weights": 3}, TypeError, "perceptual_weights must be str, got 3"),
]


@pytest.mark.parametrize("options,error,message", BAD)
def test_bad_options(options, error, message):
    with pytest.raises(error, match="PPL: " + message.replace("?", r"\?")):
        (ExtendedPPL if "head" in options else PPL)(**options)


def test_options_of_the_extension_name_it():
    with pytest.raises(TypeError, match="^PPL: unknown option 'head'; it is one of ExtendedPPL$"):
        PPL(head="residual")


def test_options_are_normalised(tmp_path):
    config = PPLConfig.from_dict({"thickness": 1, "perceptual_weights": tmp_path / "vgg.pth"})
    assert isinstance(config.thickness, float) and config.perceptual_weights == str(tmp_path / "vgg.pth")


def saved(tmp_path):
    model = tiny()
    model(pictures())
    model.save_pretrained(tmp_path / "model")
    return model.eval(), tmp_path / "model"


def test_saved_and_loaded_models_agree_bit_for_bit(tmp_path):
    model, path = saved(tmp_path)
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
    other = PPL.from_pretrained(path)
    assert not any(module.training for module in other.modules())
    assert other.config == model.config
    for a, b in zip(model(pictures())[:4], other(pictures())[:4], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_overrides_of_options(tmp_path):
    _, path = saved(tmp_path)
    assert PPL.from_pretrained(path, mask_ratio=0.5).config["mask_ratio"] == 0.5
    with pytest.raises(TypeError, match="unknown option 'mask_ration'; did you mean 'mask_ratio'"):
        PPL.from_pretrained(path, mask_ration=0.5)
    with pytest.raises(ValueError, match=r"link_parameters does not fit .* expected shape \(15,\), got shape \(10,\)"):
        PPL.from_pretrained(path, num_keypoints=6)


def test_channels_last_models_are_saved_whole(tmp_path):
    model = tiny().to(memory_format=torch.channels_last)
    model.save_pretrained(tmp_path)
    assert torch.equal(PPL.from_pretrained(tmp_path).regressor.maps.weight, model.regressor.maps.weight)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_broken_configs(tmp_path):
    _, path = saved(tmp_path)
    file = path / "config.json"
    edit(file, lambda content: content["config"].update(memory_bank=3))
    with pytest.raises(
        ValueError, match="config.json: ExtendedPPL: unknown option 'memory_bank'; did you mean 'memory_banks'"
    ):
        PPL.from_pretrained(path)
    edit(file, lambda content: content.update(architecture="AutoLink"))
    with pytest.raises(ValueError, match="config.json: expected a model of the class PPL, got AutoLink"):
        PPL.from_pretrained(path)
    file.write_text("{")
    with pytest.raises(ValueError, match="config.json: not a model config"):
        PPL.from_pretrained(path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="config.json: no such file; expected a directory written by"):
        PPL.from_pretrained(path)


def test_broken_weights(tmp_path):
    _, path = saved(tmp_path)
    file = path / "model.safetensors"
    content = file.read_bytes()
    for size in (0, 5, 200, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(ValueError, match="model.safetensors: truncated or not a safetensors file"):
            PPL.from_pretrained(path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors: no such file"):
        PPL.from_pretrained(path)


def test_weights_of_another_architecture_name_the_first_difference(tmp_path):
    _, path = saved(tmp_path)
    edit(path / "config.json", lambda content: content["config"].update(regressor_levels=3))
    with pytest.raises(ValueError, match=r"regressor.trunk.3\S+ does not fit the model: expected \w+.*, got "):
        PPL.from_pretrained(path)


def test_a_failed_save_leaves_the_old_files_alone(tmp_path, monkeypatch):
    import safetensors.torch

    _, path = saved(tmp_path)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def full(tensors, name):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        tiny(num_keypoints=7).save_pretrained(path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_an_unwritable_place_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        tiny().save_pretrained(tmp_path / "file" / "model")


def test_a_missing_safetensors_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"pip install 'ppl_fast\[train\]'"):
        tiny().save_pretrained(tmp_path)


def test_options_compare_by_value_and_print_as_they_are_written():
    one, same, other = PPLConfig(num_keypoints=5), PPLConfig(num_keypoints=5), PPLConfig(num_keypoints=6)
    assert one == same and hash(one) == hash(same) and one != other and one != vars(one)
    assert eval(repr(one), {"PPLConfig": PPLConfig}) == one
