"""A model in the loops of others: DDP, FSDP2, accumulated gradients, autocast, Lightning; docs/library.md has them."""

import contextlib

import pytest

pytest.importorskip("accelerate", reason="the processes of these tests have the train extra imported")

import torch
from ranks import together
from test_wrappers import built

STEPS = 3


def shares(rank, count=2):
    """A process's images of each step: (2, 3, 32, 32), as if the whole had 2 * count."""
    drawn = torch.Generator().manual_seed(1)
    return [torch.rand(2 * count, 3, 32, 32, generator=drawn)[rank::count] * 2 - 1 for _ in range(STEPS)]


def state(model, part=""):
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items() if part in name}


def loop(model, images, parts=1, precision=None):
    """The few lines that anyone writes."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for batch in images:
        for number, part in enumerate(batch.chunk(parts)):
            waits = model.no_sync() if number + 1 < parts and hasattr(model, "no_sync") else contextlib.nullcontext()
            with waits, torch.autocast("cpu", precision, enabled=precision is not None):
                (model(part).loss / parts).backward()
        optimizer.step()
        optimizer.zero_grad()


def meet():
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)


def by_ddp(rank):
    meet()
    found = []
    for parts, precision in ((1, None), (2, None), (1, torch.bfloat16)):
        model = built("PPL", mask_ratio=0.0).train()
        loop(torch.nn.parallel.DistributedDataParallel(model), shares(rank), parts, precision)
        found.append(state(model))
    return found


def by_fsdp(rank, folder):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    meet()
    model = built("PPL", mask_ratio=0.0).train()
    for module in (model.regressor, model.translator, model):
        fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
    loop(model, shares(rank))
    model.save_pretrained(folder / str(rank))


def same(found, expected, atol=0.0):
    """Parameters and memory; statistics of BatchNorm are each process's own."""
    names = [name for name in expected if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    for name in names:
        torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(expected[name]), rtol=0, atol=atol, msg=name)


@pytest.mark.slow
def test_ddp_and_fsdp_learn_the_same(tmp_path):
    first, second = together(tmp_path / "ddp", by_ddp)
    begun = state(built("PPL"))
    for mine, other in zip(first, second, strict=True):
        same(mine, other)  # to the bit, whatever the loop
        assert (mine["memory.codebook"] != begun["memory.codebook"]).any()
    same(first[2], first[0], atol=0.01)  # bfloat16
    together(tmp_path / "fsdp", by_fsdp, tmp_path)
    from safetensors.numpy import load_file

    same(load_file(tmp_path / "0/model.safetensors"), first[0], atol=2e-5)


@pytest.mark.slow
def test_lightning():
    lightning = pytest.importorskip("lightning", reason="Lightning is not installed")

    class Learning(lightning.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, images, number):
            return self.model(images).loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.model.parameters(), 1e-3)

    plain, wrapped = (built("PPL", mask_ratio=0.0).train() for _ in range(2))
    loop(plain, shares(0))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_steps=STEPS, **quiet)
    trainer.fit(Learning(wrapped), torch.utils.data.DataLoader(shares(0), batch_size=None))
    assert trainer.global_step == STEPS
    same(state(wrapped), state(plain))
