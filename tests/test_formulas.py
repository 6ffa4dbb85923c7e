"""benchmarks/formulas.py: what the benchmarks measure against is the published model, and agrees with ours."""

import formulas
import pytest
import torch
import whole_model
from published_cases import agree, golden, golden_state, needs_golden

import ppl_fast


@pytest.fixture(autouse=True)
def _forget():
    whole_model.expected.cache_clear()


def gate(name, task, **options):
    whole_model.gate(whole_model.Subject(name, whole_model.TINY, **options), task, whole_model.TINY)


STEP = pytest.param("training step", marks=pytest.mark.slow)


@pytest.mark.parametrize("task", [STEP, *(task for task in whole_model.TASKS if task not in STEP.values)])
@pytest.mark.parametrize("name", ["reference", "cpp"])
def test_the_whole_model_agrees_with_ours(name, task):
    gate(name, task)


FAULTS = [
    pytest.param(
        "training step", "gradient of the links", lambda heatmap: heatmap.detach() + 0 * heatmap,
        id="gradient", marks=pytest.mark.slow,
    ),
    pytest.param("inference", "heatmap", lambda heatmap: 1.01 * heatmap, id="value"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "what", "fault"), FAULTS)
def test_a_difference_is_found(task, what, fault, monkeypatch):
    draw = ppl_fast.PPL.draw
    monkeypatch.setattr(ppl_fast.PPL, "draw", lambda *arguments: fault(draw(*arguments)))
    with pytest.raises(AssertionError, match=f"{task}, reference, float32: {what}"):
        gate("reference", task)


@pytest.mark.slow
def test_training_draws_three_heatmaps_and_inference_one(monkeypatch):
    drawn, draw = [], formulas.published_link_heatmap
    monkeypatch.setattr(formulas, "published_link_heatmap", lambda *a: drawn.append(len(a[0])) or draw(*a))
    model, images = whole_model.build("formula", whole_model.SMALL), whole_model.TINY.images()
    model(images)
    assert drawn == [2, 2, 1]  # the pose, what the memory recalls of it, the prior
    drawn.clear()
    with torch.no_grad():
        model.eval()(images, losses=False)
    assert drawn == [2]


@pytest.mark.parametrize("task", [pytest.param("training step", marks=pytest.mark.slow), "inference"])
@pytest.mark.parametrize("name", ["formula", "cpp"])
def test_every_task_runs_in_bfloat16(name, task):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    gate(name, task, precision="bfloat16")
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


@pytest.fixture(scope="module")
def published():
    model = formulas.PublishedPPL(ppl_fast.PPL.Config(mask_ratio=0.0))
    missing, unexpected = model.load_state_dict(golden_state("ppl"), strict=False)
    assert missing == ["regressor.coord", "vgg_loss.mean", "vgg_loss.std"] and unexpected == []  # constants
    return model, golden("ppl")


@needs_golden
@pytest.mark.slow
def test_the_formula_gives_the_published_values(published):
    model, arrays = published
    with torch.no_grad():
        out = model.eval()(arrays["images"], losses=False)
        _, commitment = model.memory(out.keypoints)
    agree(model.memory.prior(), arrays["prior_keypoints"], 1e-4)
    for ours, theirs in (("affine", "affine"), ("keypoints", "keypoints"), ("recalled", "memory_keypoints")):
        agree(getattr(out, ours), arrays[theirs], 1e-4)
    for name in ("link_heatmap", "reconstruction"):
        agree(getattr(out, name), arrays[name], 1e-4)
    agree(commitment, arrays["commitment"], 1e-4)


@needs_golden
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's own, on leaving mkldnn.flags
def test_the_formula_trains_as_the_published_model(published):
    model, arrays = published
    with torch.backends.mkldnn.flags(enabled=False):  # see test_published_parity.py
        out = model.train()(arrays["images"])
        out.loss.backward()
    agree(out.loss.detach(), arrays["train_loss"], 1e-3)
    names = {"boundary": "boundary_loss", "reconstruction": "recon_perceptual_loss"}
    names |= {"memory": "consistency", "commitment": "vq_loss"}
    for ours, theirs in names.items():
        agree(out.losses[ours].detach(), arrays[f"train_{theirs}"], 1e-3)
    agree(model.skeleton_scalar.grad, arrays["grad_skeleton_scalar"], 1e-3)
    agree(model.regressor.predict[2].weight.grad, arrays["grad_affine_head"], 1e-3)
    agree(model.memory.ema_cluster_size, arrays["after_ema_cluster_size"], 1e-4)
    agree(model.memory.codebook[: len(arrays["after_codebook"])], arrays["after_codebook"], 1e-4)
