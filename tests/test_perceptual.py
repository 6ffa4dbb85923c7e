"""The perceptual loss: weight files of every layout, where they are looked for, and the loss itself."""

import zipfile
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from model_cases import inputs_of, pictures, tiny
from safetensors.torch import save_file
from torch._subclasses import FakeTensorMode

from ppl_fast.models import perceptual
from ppl_fast.models.perceptual import CHANNELS, STAGES, PerceptualLoss, find_weights, load_perceptual

# Positions of the convolutions in torchvision's `features`, written out.
POSITIONS = {"vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21), "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25)}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No weights on this machine, wherever they would be looked for; images compared at 48 x 48 to save time."""
    monkeypatch.setattr(perceptual, "SIZE", 48)  # 224 is proven by the published model's loss
    monkeypatch.delenv("PPL_FAST_VGG", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def layers(network="vgg16"):
    """[(position, stage, weight, bias)]"""
    generator, result, inputs = torch.Generator().manual_seed(0), [], 3
    positions = iter(POSITIONS[network])
    for stage, (count, channels) in enumerate(zip(STAGES[network], CHANNELS, strict=True)):
        for _ in range(count):
            weight = torch.randn(channels, inputs, 3, 3, generator=generator) * (2 / inputs / 9) ** 0.5
            result.append((next(positions), stage, weight, torch.randn(channels, generator=generator) / 10))
            inputs = channels
    return result


def state(network="vgg16", name="features.{position}"):
    found = {}
    for position, stage, weight, bias in layers(network):
        key = name.format(position=position, stage=stage)
        found |= {f"{key}.weight": weight, f"{key}.bias": bias}
    return found


def plain(network, images):
    """The features, layer by layer, from the written-out table."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images * 0.5 + 0.5 - mean[:, None, None]) / std[:, None, None]
    x, maps, last = F.interpolate(x, size=(perceptual.SIZE, perceptual.SIZE), mode="bilinear"), [], 0
    for _, stage, weight, bias in layers(network):
        if stage != last:
            maps.append(x)
            x, last = F.max_pool2d(x, 2, 2), stage
        x = F.relu(F.conv2d(x, weight, bias, padding=1))
    return [*maps, x]


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_loss_is_the_sum_over_four_stages(network):
    loss = PerceptualLoss(network)
    loss.load_state(state(network))
    a, b = pictures(1).requires_grad_(), pictures(1, seed=2)
    found = loss(a, b)
    expected = sum((x - y).abs().mean() for x, y in zip(plain(network, a), plain(network, b), strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(found, a)
    assert gradient.abs().max() > 0 and not any(p.requires_grad for p in loss.parameters())
    assert loss(b, b) == 0


def test_maps_that_are_computed_again_are_not_kept():
    a, b, kept, found = pictures(1).requires_grad_(), pictures(1, seed=2), [], []
    for recompute in (False, True):
        loss, held = PerceptualLoss("vgg16", recompute), {}
        loss.load_state(state())
        keep = partial(lambda held, x: held.setdefault(x.data_ptr(), x), held)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            value = loss(a, b)
        weights = {weight.data_ptr() for weight in loss.parameters()}
        kept.append(sum(x.nbytes for where, x in held.items() if where not in weights))
        found.append((value, *torch.autograd.grad(value, a)))
    assert all(map(torch.equal, *found)) and kept[1] < 0.4 * kept[0]


def with_gradient(value, a):
    (gradient,) = torch.autograd.grad(3 * value, a)
    return value, gradient


@pytest.mark.parametrize("piece", [1, 2, 3])
def test_the_gradient_is_taken_with_the_loss(monkeypatch, piece):
    """Some images at a time, of whose maps nothing is kept."""
    monkeypatch.setitem(perceptual.PIECE, "cpu", piece)
    loss, seen = PerceptualLoss("vgg16"), []
    loss.load_state(state())
    a, b = pictures(3).requires_grad_(), pictures(3, seed=2)
    whole = loss.distance(a, b)
    # By as many images at a time: among others oneDNN rounds otherwise, and a kink may lie between.
    parts = [(a[i : i + piece], b[i : i + piece]) for i in range(0, 3, piece)]
    expected = with_gradient(sum(loss.distance(*part) * len(part[0]) / 3 for part in parts), a)
    monkeypatch.setattr(loss, "features", lambda x, *rest, of=loss.features: (seen.append(len(x)), of(x, *rest))[1])
    found = loss(a, b)
    (kept,) = found.grad_fn.saved_tensors
    assert kept.shape == a.shape and seen == [n for n in (min(piece, 3 - i) for i in range(0, 3, piece)) for _ in "ab"]
    torch.testing.assert_close(with_gradient(found, a), expected, rtol=1e-5, atol=1e-8)
    with torch.no_grad():
        torch.testing.assert_close(loss(a, b), whole)


def test_where_maps_are_kept_for_the_backward():
    """In float16 the gradient must first be scaled, and transforms follow what is computed."""
    loss = PerceptualLoss("vgg16")
    loss.load_state(state())
    a, b = pictures(1).requires_grad_(), pictures(1, seed=2)
    at_once = type(loss(a, b).grad_fn)
    for dtype, differs in ((torch.bfloat16, False), (torch.float16, True)):
        with torch.autocast("cpu", dtype):
            assert (type(loss(a, b).grad_fn) is not at_once) is differs
    expected = torch.autograd.grad(loss(a, b), a)[0]
    torch.testing.assert_close(torch.func.grad(lambda x: loss(x, b))(a.detach()), expected)
    with torch.autograd.forward_ad.dual_level():
        dual = loss(torch.autograd.forward_ad.make_dual(a, a.detach()), b)
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(tangent, (expected * a).sum(), rtol=1e-4, atol=1e-6)
    value = torch.utils.checkpoint.checkpoint(loss, a, b, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(value, a)[0], expected)


def test_it_is_made_and_run_without_numbers():
    with torch.device("meta"), torch.no_grad():
        loss = PerceptualLoss("vgg16")
        assert loss(torch.empty(1, 3, 32, 32), torch.empty(1, 3, 32, 32)).shape == ()
    with FakeTensorMode():
        PerceptualLoss("vgg16")


EXTRA = {
    "classifier.0.weight": torch.zeros(8, 8),
    "classifier.0.bias": torch.zeros(8),
    "head.fc.weight": torch.zeros(2),
}


@pytest.mark.parametrize(
    "name,suffix",
    [
        ("features.{position}", ".pth"),
        ("features.{position}", ".safetensors"),
        ("{position}", ".pth"),
        ("blocks.{stage}.{position}", ".safetensors"),
        ("vgg_loss.blocks.{stage}.{position}", ".pth"),
        ("module.features.{position}", ".pth"),
    ],
)
def test_every_layout_loads(tmp_path, name, suffix):
    path = tmp_path / f"weights{suffix}"
    content = EXTRA | state(name=name)
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    loss = load_perceptual("vgg16", str(path))
    found = [layer.weight for stage in loss.stages for layer in stage]
    assert all(torch.equal(a, b[2]) for a, b in zip(found, layers(), strict=True))
    assert not loss.training


def test_where_weights_are_looked_for(tmp_path, nowhere, monkeypatch):
    cached = nowhere / "vgg16-397923af.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find_weights("vgg16") == cached
    by_variable, by_argument = tmp_path / "variable.pth", tmp_path / "argument.pth"
    by_variable.touch()
    by_argument.touch()
    monkeypatch.setenv("PPL_FAST_VGG", str(by_variable))
    assert find_weights("vgg16") == by_variable
    assert find_weights("vgg16", str(by_argument)) == by_argument


def test_missing_weights_say_where_and_how(nowhere, monkeypatch):
    with pytest.raises(FileNotFoundError) as error:
        load_perceptual("vgg19")
    for part in ("vgg19", "$PPL_FAST_VGG", str(nowhere / "vgg19-dcbb9e9d.pth"), "python -c", "check_hash=True", "mse"):
        assert part in str(error.value)
    with pytest.raises(FileNotFoundError, match="perceptual_weights names /none.pth, which is not a file"):
        load_perceptual(weights="/none.pth")
    monkeypatch.setenv("PPL_FAST_VGG", "/none.pth")
    with pytest.raises(FileNotFoundError, match=r"\$PPL_FAST_VGG names /none.pth, which is not a file"):
        load_perceptual()


def test_download_only_when_allowed(nowhere, monkeypatch):
    calls = []

    def download(url, **options):
        calls.append((url, options))
        nowhere.mkdir(parents=True)
        torch.save(state(), nowhere / "vgg16-397923af.pth")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    with pytest.raises(FileNotFoundError):
        load_perceptual()
    assert not calls
    load_perceptual(download=True)
    ((url, options),) = calls
    assert url.startswith("https://") and options["check_hash"] and options["weights_only"]


def test_broken_files_are_named(tmp_path):
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(ValueError, match=f"{name}: not a readable weight file"):
            load_perceptual(weights=str(tmp_path / name))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth: must hold a state dict, got list"):
        load_perceptual(weights=str(tmp_path / "list.pth"))
    torch.save(state(), tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=r"vgg16.pth: features.16.weight is missing: not vgg19 weights"):
        load_perceptual("vgg19", str(tmp_path / "vgg16.pth"))
    torch.save(state() | {"features.5.weight": torch.zeros(3, 3)}, tmp_path / "shape.pth")
    expected = r"shape.pth: features.5.weight must have shape \(128, 64, 3, 3\) for vgg16, got \(3, 3\)"
    with pytest.raises(ValueError, match=expected):
        load_perceptual(weights=str(tmp_path / "shape.pth"))


def test_archives_that_unpack_beyond_themselves_are_refused(tmp_path):
    path = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": torch.zeros(1 << 16)}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="not a readable weight file .*compressed entries"):
        load_perceptual("vgg16", str(path))


def test_weights_must_be_finite_numbers():
    whole = state()
    for change, sentence in ((lambda x: x.long(), "must hold numbers"), (lambda x: x / 0, "holds NaN or infinity")):
        with pytest.raises(ValueError, match=f"^vgg.pth: features.0.weight {sentence}"):
            PerceptualLoss("vgg16").load_state(
                whole | {"features.0.weight": change(whole["features.0.weight"])}, "vgg.pth"
            )


def test_no_weights_are_needed_to_build_load_or_estimate(tmp_path):
    model = tiny(reconstruction_loss="perceptual")
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path)
    assert model.estimate(pictures(), 2).shape == (2, 5, 2)
    for call in (model.load_perceptual, lambda: model(pictures())):
        with pytest.raises(FileNotFoundError, match="needs pretrained vgg16 weights"):
            call()


def test_model_with_perceptual_loss(tmp_path):
    torch.save(state(), tmp_path / "vgg.pth")
    model = tiny(reconstruction_loss="perceptual", perceptual_weights=tmp_path / "vgg.pth", reconstruction_weight=2.0)
    seen, images = inputs_of(model.translator), pictures(1)
    keys = list(model.state_dict())
    out = model(images)
    out.loss.backward()
    loss = load_perceptual(weights=str(tmp_path / "vgg.pth"))
    torch.testing.assert_close(out.losses["reconstruction"], 2 * loss(out.reconstruction, images))
    assert len(seen) == 1 and list(model.state_dict()) == keys and model.translator.end.weight.grad.any()
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 1e6  # VGG's 30 MB are not in it
