"""Steps of training replayed from a graph: phases, buffers, seeds and losses are those of an eager run, to the bit.

There is no CUDA graph on a CPU: a stand-in runs the step again at each replay, with the numbers that Python had at the
capture, and leaves its results where those of the first replay were. test_gpu_models.py replays real ones.
"""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import run_steps

from ppl_fast._cuda_graphs import Recorder
from ppl_fast.models import ExtendedPPL
from ppl_fast.models.extended import Extension
from ppl_fast.options.demo import MODEL as DEMO
from ppl_fast.training import TrainConfig, captured, trainer
from ppl_fast.training.logging import read_records

SCHEDULES = {
    "withhold": 0.5,
    "withhold_until": 0.5,
    "equivariance_weight": 1.0,
    "equivariance_ramp": 0.25,
    "foreground_weight": 1.0,
    "occlude_fill": True,
}
LOOP = {"schedule": "cosine", "clip_norm": 0.5, "log_every": 5, "checkpoint_every": 12}


class StandIn(Recorder):
    """In the place of `captured.Recorder`."""

    trainer: trainer.Trainer
    captures = 0
    error: Exception | None = None

    def __init__(self, device: torch.device):
        self.aside = nullcontext

    def record(self, step):
        if StandIn.error:
            try:
                raise StandIn.error
            finally:  # as torch ends a capture that failed
                raise RuntimeError("operation failed due to a previous error during capture")
        StandIn.captures += 1
        model, kept = StandIn.trainer.bare_model, []
        share = model.behind

        def replay():
            now, model.behind = model.behind, share
            names, values = step()
            model.behind = now
            kept.append(values) if not kept else kept[0].copy_(values)
            return names, kept[0]

        return replay

    def wait(self):
        pass

    recover = wait


@pytest.fixture(scope="module")
def graphs():
    """Options of a run with graphs by the stand-in; and learning rates, as a GPU reads them, have seven digits."""
    begin, rate = trainer.Trainer.__init__, TrainConfig.learning_rate

    def begun(self, config, *arguments):
        StandIn.trainer = self
        begin(self, replace(config, cuda_graph=config.threads == 1), *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "__init__", begun)
        patch.setattr(TrainConfig, "learning_rate", lambda self, step: float(np.float32(rate(self, step))))
        patch.setattr(captured, "Recorder", StandIn)
        patch.setattr(Extension, "captured", True)  # in eager runs, too: all samples are filled in at once
        yield {"threads": 1}


@pytest.fixture(autouse=True)
def _anew(monkeypatch):
    monkeypatch.setattr(StandIn, "captures", 0)


def contents(run, step):
    """What training leaves, apart from the time that it took."""
    files = ("model.safetensors", "optimizer.safetensors")
    records = [{**each, "seconds": 0, "images_per_second": 0} for each in read_records(run / "log.jsonl")]
    return [(run / f"checkpoints/step_{step:07d}" / name).read_bytes() for name in files], records


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory, graphs):
    """What 24 eager steps leave."""
    run = tmp_path_factory.mktemp("runs") / "eager"
    run_steps(images, run, 24, model=SCHEDULES, **LOOP)
    assert StandIn.trainer._captured is None
    return contents(run, 24)


def test_replayed_steps_are_those_of_an_eager_run(images, tmp_path, graphs, straight):
    """Link heatmaps are withheld up to step 12: two phases with three eager steps each; a weight grows up to step 6."""
    run_steps(images, tmp_path / "graphs", 24, model=SCHEDULES, **LOOP, **graphs)
    assert contents(tmp_path / "graphs", 24) == straight
    assert (StandIn.captures, StandIn.trainer._captured.replays) == (2, 9 + 9)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_with_graphs_or_without(images, tmp_path, graphs, straight, first, monkeypatch):
    before, after = (graphs, {}) if first else ({}, graphs)
    advance = trainer.Trainer._advance

    def interrupted(self, batch):
        if self.step == 12 and "stopped" not in kept:
            kept.append("stopped")
            raise KeyboardInterrupt
        advance(self, batch)

    kept: list[str] = []
    monkeypatch.setattr(trainer.Trainer, "_advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_steps(images, tmp_path / "run", 24, model=SCHEDULES, **LOOP, **before)
    run_steps(images, tmp_path / "run", 24, model=SCHEDULES, resume=True, **LOOP, **after)
    assert contents(tmp_path / "run", 24)[0] == straight[0]


def test_what_cannot_be_captured_is_said_once_and_trained_eagerly(
    images, tmp_path, graphs, straight, capsys, monkeypatch
):
    error = RuntimeError("operation not permitted when stream is capturing\nand more")
    monkeypatch.setattr(StandIn, "error", error)
    run_steps(images, tmp_path / "run", 24, model=SCHEDULES, **LOOP, **graphs)
    said = [line for line in capsys.readouterr().out.splitlines() if "CUDA graph" in line]
    reason = "operation not permitted when stream is capturing"
    assert said == [f"note: steps are taken one by one, as no CUDA graph can hold this model's ({reason})"]
    assert contents(tmp_path / "run", 24) == straight
    assert StandIn.trainer._captured.replays == 0


def test_weights_grow_on_a_device_as_in_python():
    model = Extension.__new__(Extension)
    torch.nn.Module.__init__(model)
    model.links, distance = torch.zeros(0, 2), torch.tensor(0.1)
    for share in np.linspace(0, 0.99, 34).tolist():
        model.captured, model._behind = False, None
        model.progressed(share)
        expected = [distance * model.grown(over) for over in (0.0, 0.3, 1.0)]
        model.captured = True
        model.progressed(share)
        growing = [model.grown(over) for over in (0.0, 0.3, 1.0)]
        assert all(isinstance(each, torch.Tensor) for each in growing[1:])
        assert [distance * each for each in growing] == expected and growing[1] == min(1, share / 0.3)


def test_another_shape_or_phase_ends_a_graph(graphs, monkeypatch):
    model = Extension.__new__(Extension)
    monkeypatch.setattr(StandIn, "trainer", SimpleNamespace(bare_model=model), raising=False)  # may be the first one
    torch.nn.Module.__init__(StandIn.trainer.bare_model)
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight], lr=0.5, fused=True)
    seen = []

    def step(batch):
        seen.append(batch["images"])
        return ("loss",), batch["images"].sum().reshape(1)

    take = captured.CapturedStep(step, optimizer, torch.device("cpu"), torch.channels_last)
    sizes, phases = [2] * 5 + [3] * 15, [0] * 10 + [1, 2, 3, 4, 5] + [6] * 5
    for i, (size, phase) in enumerate(zip(sizes, phases, strict=True)):
        names, sums = take({"images": torch.full((size, 3, 4, 4), float(i))}, (phase,))
        assert names == ("loss",) and sums.item() == size * 48 * i
    assert len({each.data_ptr() for each in seen[:5]}) == 1 and seen[0].is_contiguous(memory_format=torch.channels_last)
    assert (StandIn.captures, take.replays) == (3, 6)
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) and optimizer.param_groups[0]["capturable"]


def on_a_gpu(processes=1):
    return SimpleNamespace(device=torch.device("cuda"), num_processes=processes)


def test_where_steps_are_replayed_without_being_asked():
    small = ExtendedPPL(**DEMO)
    assert captured.replays(TrainConfig(batch_size=64), small, on_a_gpu())
    for differs in ({"batch_size": 65}, {"precision": "fp16"}, {"accumulate": 2}, {"cuda_graph": False}):
        assert not captured.replays(TrainConfig(**{"batch_size": 64} | differs), small, on_a_gpu())
    config = TrainConfig(batch_size=8)
    assert not captured.replays(config, small, on_a_gpu(processes=2))
    assert not captured.replays(config, small, SimpleNamespace(device=torch.device("cpu"), num_processes=1))
    assert captured.replays(replace(config, cuda_graph=True, batch_size=65), small, on_a_gpu())
    assert not captured.replays(config, ExtendedPPL(**DEMO | {"reconstruction_loss": "perceptual"}), on_a_gpu())

    class Own(ExtendedPPL):
        pass

    taught = ExtendedPPL(**DEMO)
    taught.terms = (*taught.terms, taught.terms[0])
    assert not any(captured.replays(config, model, on_a_gpu()) for model in (Own(**DEMO), taught))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "fp16"}, "cuda_graph needs precision no or bf16, got fp16"),
        ({"accumulate": 2}, "cuda_graph takes a step's images at once, got accumulate 2"),
        ({"device": "cpu"}, "cuda_graph needs one process on a CUDA GPU, got device cpu: set it to false there"),
    ],
)
def test_what_does_not_go_with_a_graph_is_refused(images, tmp_path, options, sentence):
    with pytest.raises(ValueError, match=f"^TrainConfig: {sentence}"):
        run_steps(images, tmp_path / "run", 1, cuda_graph=True, **options)
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(images, tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_fast._devices.pick", lambda name: torch.device("cuda"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="^TrainConfig: cuda_graph needs one process on a CUDA GPU, got 2 processes"):
        run_steps(images, tmp_path / "run", 1, cuda_graph=True)


@pytest.mark.parametrize(
    ("given", "meant"), [(True, "true"), (np.bool_(False), "false"), ("on", "true"), ("auto", "auto")]
)
def test_words_for_a_graph(given, meant):
    assert TrainConfig(cuda_graph=given).cuda_graph == meant
