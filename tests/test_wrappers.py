"""What people put around a model: other precisions, compilers, quantization, copies."""

import copy
import io
import warnings

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import ppl_fast

SMALL = {"num_keypoints": 5, "image_size": 32, "translator": "light", "translator_base": 4, "translator_levels": 2,
         "mask_blocks": 4, "reconstruction_loss": "mse"}  # fmt: skip
MEMORY = {"memory_width": 16, "memory_hidden": 16, "memory_layers": 1, "memory_banks": 3, "memory_prototypes": 4}
FURTHER = {"head": "residual", "prior_weight": 1.0, "occlude_input": 0.5, "occlude_fill": True, "reseed_after": 2}
OPTIONS = {
    "PPL": SMALL | MEMORY | {"regressor_base": 4},
    "ExtendedPPL": SMALL | MEMORY | FURTHER | {"regressor_base": 4},
    "AutoLink": SMALL | {"detector_base": 4, "detector_size": 32},
}
MODELS = pytest.mark.parametrize("name", OPTIONS)


def built(name, **options):
    torch.manual_seed(0)
    return getattr(ppl_fast, name)(**OPTIONS[name] | options)


def pictures(count=2):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@MODELS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name, dtype):
    """Positions stay float32, whose digits they need; two steps, as a memory moves after the first."""
    model, images = built(name), pictures()
    found = copy.deepcopy(model).to(dtype).eval().estimate(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model.eval().estimate(images.to(dtype)), atol=0.05, rtol=0)
    model = model.to(dtype).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(images.to(dtype)).loss
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    if name != "AutoLink":
        assert {value.dtype for value in model.memory.state_dict().values()} == {torch.float32, torch.int64}
        assert built(name).double().memory.codebook.dtype == torch.float64


def test_a_model_of_half_precision_on_disk(tmp_path):
    model = built("PPL").bfloat16().eval()
    model.save_pretrained(tmp_path)
    loaded = ppl_fast.PPL.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.bfloat16().estimate(pictures()), model.estimate(pictures()))


def test_images_that_are_not_square():
    with pytest.raises(
        TypeError, match=r"PPL: image_size must be an int, the side of the squares .*got \(32, 64\); the"
    ):
        built("PPL", image_size=(32, 64))
    with pytest.raises(ValueError, match=r"images must have shape \(B, 3, 32, 32\), got \(2, 3, 32, 64\)"):
        built("PPL")(torch.zeros(2, 3, 32, 64))


@MODELS
@pytest.mark.slow
def test_training_by_a_compiler_without_inductor(name):
    torch._dynamo.reset()
    plain = built(name).train()
    compiled = copy.deepcopy(plain)
    losses = []
    for model in (plain, torch.compile(compiled, backend="aot_eager")):
        torch.manual_seed(2)
        losses.append(model(pictures()).loss)
        losses[-1].backward()
    torch.testing.assert_close(*losses)
    for before, after in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(before.grad, after.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_hidden_input_is_one_graph_whatever_was_drawn():
    """As compiled, all images are filled in and those that were drawn chosen: so a step is compiled once."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain = built("ExtendedPPL", occlude_fill_share=0.5).train()
    compiled = copy.deepcopy(plain)
    step = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for seed in range(4):
        losses = []
        for call in (plain, step):
            torch.manual_seed(seed)
            losses.append(call(pictures(8)).loss)
            losses[-1].backward()
        torch.testing.assert_close(*losses)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for before, after in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(before.grad, after.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_compiled_models_of_several_thicknesses():
    """After the first, the compiler leaves the number open."""
    torch._dynamo.reset()
    for thickness in (1e-3, 5e-3, 2e-2):
        model = built("AutoLink", thickness=thickness).eval()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        found, expected = (call(pictures(), losses=False).link_heatmap for call in (compiled, model))
        torch.testing.assert_close(found, expected)


@MODELS
def test_quantized_linear_layers(name):
    model = built(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather see torchao's
        quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    assert name == "AutoLink" or any("quantized" in type(m).__module__ for m in quantized.modules())
    torch.testing.assert_close(quantized.estimate(pictures()), model.estimate(pictures()), atol=0.2, rtol=0)


@MODELS
def test_copies(name):
    model = built(name).train()
    model(pictures()).loss.backward()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    expected = model.eval().estimate(pictures())
    for copied in (copy.deepcopy(model), torch.load(file, weights_only=False), average.module):
        assert torch.equal(copied.eval().estimate(pictures()), expected)


@MODELS
def test_gradients_and_maps_of_torch_func(name):
    model = built(name).eval()
    parameters = {key: value.detach() for key, value in model.named_parameters()}
    found = torch.func.grad(lambda p: torch.func.functional_call(model, p, (pictures(),)).loss)(parameters)
    model(pictures()).loss.backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[key], parameter.grad, rtol=1e-4, atol=1e-5)
    each = torch.func.vmap(lambda image: model(image[None], losses=False).keypoints[0])(pictures())
    torch.testing.assert_close(each, model(pictures(), losses=False).keypoints, rtol=1e-4, atol=1e-5)


def test_parameters_that_are_shared_out_over_processes(tmp_path):
    """FSDP2 takes no scalar. One process is enough to see what is taken; the loss is the plain model's."""
    dist = torch.distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    plain = built("PPL", mask_ratio=0.0).train()
    sharded = copy.deepcopy(plain)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
        loss = sharded(pictures()).loss
        loss.backward()
        torch.testing.assert_close(loss, plain(pictures()).loss)
        sharded.save_pretrained(tmp_path / "saved")
        with pytest.raises(RuntimeError, match="register_fsdp_forward_method"):
            fresh = fully_shard(built("PPL"), mesh=init_device_mesh("cpu", (1,)))
            fresh.estimate(pictures())
        for method in ("prior", "link_weights", "connectivity", "prototype_poses"):
            with pytest.raises(RuntimeError, match=r"PPL: the parameters are shared out .* `unshard\(\)` before"):
                getattr(fresh, method)()
        fresh.unshard()
        assert torch.equal(fresh.prior().keypoints, built("PPL").prior().keypoints)
        fresh.reshard()
        register_fsdp_forward_method(fresh, "estimate")
        assert torch.equal(fresh.estimate(pictures()), built("PPL").estimate(pictures()))
    finally:
        dist.destroy_process_group()
    saved = ppl_fast.PPL.from_pretrained(tmp_path / "saved").state_dict()
    torch.testing.assert_close(saved, plain.state_dict())


def test_alpha_is_a_scalar_on_disk(tmp_path):
    """As in the published models, and in those saved before it was a parameter of one element."""
    from safetensors.torch import load_file

    model = built("PPL")
    with torch.no_grad():
        model.alpha.fill_(0.5)
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["alpha"].shape == () == model.state_dict()["alpha"].shape
    assert torch.equal(ppl_fast.PPL.from_pretrained(tmp_path).alpha, torch.tensor([0.5]))
    state = model.state_dict()
    for alpha in (torch.tensor(0.25), torch.tensor([0.25])):
        model.load_state_dict(state | {"alpha": alpha})
        assert model.alpha.tolist() == [0.25]


def test_optimizer_state_from_when_alpha_was_a_scalar(tmp_path):
    from safetensors.torch import save_file

    from ppl_fast.training.checkpoint import load_optimizer

    model = built("PPL")
    saved = {"exp_avg": torch.tensor(0.5), "exp_avg_sq": torch.tensor(0.1), "step": torch.tensor(3.0)}
    save_file({f"alpha.{slot}": value for slot, value in saved.items()}, tmp_path / "optimizer.safetensors")
    optimizer = torch.optim.AdamW(model.parameters())
    load_optimizer(tmp_path, model, optimizer)
    assert optimizer.state[model.alpha]["exp_avg"].tolist() == [0.5] and optimizer.state[model.alpha]["step"] == 3


def gradients(model):
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["PPL", "AutoLink"])
def test_activation_checkpointing_of_a_whole_model(name, reentrant):
    """The second run of a pass reads the memory as the first one did, and moves nothing."""
    plain = built(name).train()
    checkpointed = copy.deepcopy(plain)
    for step in range(3):
        images = pictures().requires_grad_(reentrant)
        torch.manual_seed(step)
        plain(pictures()).loss.backward()
        torch.manual_seed(step)
        checkpoint(lambda images: checkpointed(images).loss, images, use_reentrant=reentrant).backward()
        torch.testing.assert_close(gradients(checkpointed), gradients(plain), rtol=1e-4, atol=1e-5)
    if name == "PPL":
        torch.testing.assert_close(checkpointed.memory.state_dict(), plain.memory.state_dict())
        assert not torch.equal(plain.memory.codebook, built(name).memory.codebook)


def test_checkpointed_passes_that_cannot_be_computed_again():
    first, second = pictures(), pictures(3)
    for images in ((first, second), (first, first)):
        model = built("PPL").train()
        passes = [checkpoint(lambda images, model=model: model(images).loss, i, use_reentrant=False) for i in images]
        with pytest.raises(RuntimeError, match="after the memory has moved on; call backward before the next pass"):
            sum(passes).backward()
    model = built("ExtendedPPL", occlude_input=1.0).train()
    with pytest.raises(RuntimeError, match="with occlude_fill a pass cannot be computed again"):
        checkpoint(lambda images: model(images).loss, first, use_reentrant=False).backward()
