"""Two processes that train together: what they share, against one process, and what happens when one is lost."""

import hashlib
import os
import re
import shutil
import signal

import pytest

pytest.importorskip("accelerate", reason="training needs the train extra")

import numpy as np
from ranks import Ranks, together
from tiny import MODEL, draw_images, run_steps

from ppl_fast.data import ImageFolder
from ppl_fast.training import TrainingInterrupted, trainer
from ppl_fast.training.checkpoint import list_checkpoints
from ppl_fast.training.logging import read_records
from ppl_fast.training.processes import meeting, noticing_loss
from ppl_fast.training.signals import PASSED_ON, StopSignals

# Nothing random but the order of the images and flips, so that one process and two do the same; and small steps, for
# Adam's first divide each gradient by its own size, however tiny, and make more of how it was rounded.
LR = 1e-4
SAME = {"occlude_input": 0.0, "mask_ratio": 0.0, "reseed_after": 0}
STILL = SAME | {"memory_decay": 1.0}  # nor does the memory move between two parts
pytestmark = pytest.mark.slow


def digest(tensors) -> str:
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()


def watched(rank, images, out, steps, resume=False, model=None, **options):
    """Train, and keep of every step: the images, the loss, the gradient, and digests of weights and memory."""
    seen, advance, prepared = [], trainer.Trainer._advance, trainer.Trainer.__init__

    def watching(self, *arguments):
        prepared(self, *arguments)
        self.optimizer.optimizer.register_step_pre_hook(
            lambda *_: seen[-1].update(
                gradient={n: p.grad.numpy().copy() for n, p in self.bare_model.named_parameters()}
            )
        )

    def stepping(self, batch):
        seen.append({"images": {digest([image]) for image in batch}})
        advance(self, batch)
        loss, model = self._totals["loss"].item(), self.bare_model
        memory = [value for name, value in model.named_buffers() if name.startswith("memory.")]
        statistics = [value for name, value in model.named_buffers() if "running" in name]
        state = {"weights": model.parameters(), "memory": memory, "statistics": statistics}
        seen[-1] |= {"loss": loss} | {name: digest(tensors) for name, tensors in state.items()}

    trainer.Trainer._advance, trainer.Trainer.__init__ = stepping, watching
    try:
        options = {"log_every": 1, "lr": LR} | options
        run_steps(images, out, steps, resume, SAME | (model or {}), **options)
    finally:
        trainer.Trainer._advance, trainer.Trainer.__init__ = advance, prepared
    return seen


def in_sync(rank, *arguments):
    return watched(rank, *arguments, sync_batchnorm=True, checkpoint_every=2)


@pytest.fixture(scope="module")
def one(images, tmp_path_factory):
    """A run of four steps by one process, and what was seen of them."""
    run = tmp_path_factory.mktemp("one") / "run"
    return run, watched(0, images, run, 4, checkpoint_every=2)


@pytest.fixture(scope="module")
def two(images, tmp_path_factory):
    """The same by two processes, BatchNorm over both."""
    folder = tmp_path_factory.mktemp("two")
    return folder / "run", together(folder, in_sync, images, folder / "run", 4)


def distance(gradients, others) -> float:
    """Of two gradients, relative to the second."""
    apart = sum(np.square(gradients[name] - other).sum() for name, other in others.items())
    return float(np.sqrt(apart / sum(np.square(other).sum() for other in others.values())))


def test_two_processes_do_what_one_does(one, two):
    assert len(one[1]) == 4
    for whole, *parts in zip(one[1], *two[1], strict=True):
        assert whole["images"] == parts[0]["images"] | parts[1]["images"]
        assert not parts[0]["images"] & parts[1]["images"]
        assert sum(part["loss"] for part in parts) / 2 == pytest.approx(whole["loss"], rel=2e-5)
        assert distance(parts[0]["gradient"], whole["gradient"]) < 1e-4
    assert distance(two[1][0][0]["gradient"], one[1][0]["gradient"]) < 2e-6  # before rounding has been learned from
    records = [read_records(run / "log.jsonl") for run in (one[0], two[0])]
    assert [r["loss"] for r in records[1]] == pytest.approx([r["loss"] for r in records[0]], rel=2e-5)


def test_processes_hold_the_same_after_every_step(two):
    for first, second in zip(*two[1], strict=True):
        assert all(first[name] == second[name] for name in ("weights", "memory", "statistics"))
        assert all(np.array_equal(first["gradient"][name], other) for name, other in second["gradient"].items())


def resumed_from_two(run, folder):
    """A copy of a run as it was after two steps."""
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints/step_0000004")
    return folder


def test_two_go_on_where_one_stopped(one, images, tmp_path):
    run = resumed_from_two(one[0], tmp_path / "run")
    for first, second, whole in zip(*together(tmp_path, in_sync, images, run, 4, True), one[1][2:], strict=True):
        assert first["images"] | second["images"] == whole["images"]
        assert (first["loss"] + second["loss"]) / 2 == pytest.approx(whole["loss"], rel=2e-5)
    assert [record["step"] for record in read_records(run / "log.jsonl")] == [1, 2, 3, 4]


def test_one_goes_on_where_two_stopped(one, two, images, tmp_path):
    run = resumed_from_two(two[0], tmp_path / "run")
    for found, whole in zip(watched(0, images, run, 4, True), one[1][2:], strict=True):
        assert found["images"] == whole["images"] and found["loss"] == pytest.approx(whole["loss"], rel=2e-5)


def by_itself(rank, images, out, still):
    found = watched(rank, images, out, 3, model=MODEL)  # all that is random, and vectors that are drawn anew
    return found, watched(rank, images, still, 1, model=STILL)


def test_batchnorm_by_itself_and_parts_one_after_another(images, tmp_path):
    """Weights and memory stay equal; statistics do not. A part of one process sees what a process sees of two."""
    first, second = together(tmp_path, by_itself, images, tmp_path / "run", tmp_path / "still")
    assert len({step["memory"] for step in first[0]}) == 3
    for mine, other in zip(first[0], second[0], strict=True):
        assert (mine["weights"], mine["memory"]) == (other["weights"], other["memory"])
        assert mine["statistics"] != other["statistics"]
    whole, parts = (watched(0, images, tmp_path / f"{n}", 1, model=STILL, accumulate=n)[0] for n in (1, 2))
    assert whole["images"] == parts["images"] == first[1][0]["images"] | second[1][0]["images"]
    assert distance(parts["gradient"], first[1][0]["gradient"]) < 2e-6
    assert parts["loss"] == pytest.approx((first[1][0]["loss"] + second[1][0]["loss"]) / 2, rel=1e-5)
    assert distance(whole["gradient"], first[1][0]["gradient"]) > 0.01  # BatchNorm over four images, not two


def test_parts_must_be_whole(images, tmp_path):
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 1 processes times the 3 parts of accum"):
        run_steps(images, tmp_path / "run", 1, accumulate=3)


def reading(rank, images, empty, out):
    looked, size = [], ImageFolder._size
    ImageFolder._size = lambda self, name: looked.append(name) or size(self, name)
    with pytest.raises(ValueError, match="expected images .* or videos .* in .*empty, got none"):
        run_steps(empty, out, 1)
    run_steps(images, out, 1)
    return looked


def test_one_process_reads_the_images_for_all(images, tmp_path):
    (tmp_path / "empty").mkdir()
    looked = together(tmp_path, reading, images, tmp_path / "empty", tmp_path / "run")
    assert sorted(looked[0]) == sorted(path.name for path in images.iterdir()) and looked[1] == []


def refused(*arguments, **options) -> str:
    with pytest.raises(ValueError) as caught:
        run_steps(*arguments, **options)
    return str(caught.value)


def unlike(rank, images, other, folder):
    """Machines that share no disk, which each have a reader; then one that resumes, where the other has no run."""
    mine = folder / f"machine{rank}"
    os.environ["LOCAL_RANK"] = "0"
    said = [
        refused(images, mine, 2, seed=rank),
        refused(images, mine, 2, model={"memory_width": 16 + 8 * rank}),
        refused((images, other)[rank], mine, 2),
    ]
    run_steps(images, mine, 2, threads=1 + rank)  # which may differ
    return [*said, refused(images, mine, 4, resume=True)], (mine / "config.yaml").exists()


def test_processes_that_do_not_train_the_same(images, tmp_path):
    other = draw_images(tmp_path / "other", 5)
    (first, there), (second, here) = together(tmp_path, unlike, images, other, tmp_path)
    assert first == second and there and not here
    seed, width, pictures, step = first
    start = "train: the processes must hold the same "
    assert seed == start + "option train.seed, but process 0 has 0 and process 1 1"
    assert width == start + "option model.memory_width, but process 0 has 16 and process 1 24"
    assert re.fullmatch(
        start + r"images, but process 0 has '10 of .*' and process 1 '5 of .*machine needs .*", pictures
    )
    assert step.startswith(start + "step, but process 0 has 2 and process 1 0; every machine needs the run's directory")


def at_step(rank, who, step, act):
    """Let one process do something to itself after a step."""
    advance = trainer.Trainer._advance

    def advance_and_act(self, batch):
        advance(self, batch)
        if rank == who and self.step == step:
            act()

    trainer.Trainer._advance = advance_and_act


def send(*numbers):
    for number in numbers:
        signal.raise_signal(number)  # to this thread: a signal to the process may reach another, and be late


def interrupted(rank, images, folder):
    """By Ctrl-C, which the launcher passes on; in a process that does not see the run's directory."""
    at_step(rank, 1, 4, lambda: send(signal.SIGINT, signal.SIGTERM, signal.SIGINT))
    try:
        run_steps(images, folder / f"machine{rank}", 9)
    except TrainingInterrupted as stopped:
        return str(stopped)


def test_one_ctrl_c_in_any_process_saves_once(images, tmp_path):
    for rank, said in enumerate(together(tmp_path, interrupted, images, tmp_path)):
        assert said.startswith(f"stopped at step 4, saved {tmp_path}/machine{rank}/checkpoints/step_0000004; resume")
    assert [path.name for path in list_checkpoints(tmp_path / "machine0")] == ["step_0000003", "step_0000004"]
    assert not (tmp_path / "machine1").exists()


def test_a_second_signal_counts_once_the_launcher_is_done():
    given = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt), StopSignals(launched=True) as stop:
            send(signal.SIGINT, signal.SIGINT)
            assert stop.received == "SIGINT"
            stop._since -= PASSED_ON
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, given)


def lost(rank, images, run, number, timeout):
    at_step(rank, 1, 5, lambda: send(number))
    run_steps(images, run, 1000, timeout=timeout)


@pytest.mark.parametrize(
    ("number", "timeout", "what"),
    [
        (signal.SIGKILL, 60, "ended"),
        pytest.param(signal.SIGSTOP, 10, "did not answer for 10 s", marks=pytest.mark.slow),
    ],
)
def test_a_lost_process_ends_the_others(images, tmp_path, number, timeout, what):
    run = tmp_path / "run"
    with Ranks(tmp_path, lost, images, run, number, timeout) as ranks:
        error = ranks.answer(0)
    kept = run / "checkpoints/step_0000003"
    assert isinstance(error, ConnectionError)
    assert (
        str(error) == f"training stopped: another of its processes {what}; {kept} is kept, --resume continues from it"
    )
    assert list((run / "checkpoints").iterdir()) == [kept] and not list(run.rglob("*.tmp"))
    run_steps(images, run, 6, resume=True)


def test_an_attempt_does_not_see_what_another_left_in_the_store(monkeypatch):
    """The launcher's store, as torchrun keeps it over a restart on one machine."""
    from torch.distributed import TCPStore
    from torch.distributed.rendezvous import rendezvous

    launchers = TCPStore("127.0.0.1", 0, is_master=True)
    given = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": launchers.port}
    given |= {"TORCHELASTIC_USE_AGENT_STORE": True, "GROUP_WORLD_SIZE": 1}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    seen = []
    for attempt in ("0", "1", "1", "2"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        store, rank, size = next(rendezvous(meeting() or "env://"))
        assert (rank, size) == (0, 1)
        seen.append(store.add("processes", 1))
    assert seen == [1, 1, 2, 1]
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")  # each of several machines counts its own restarts
    assert meeting() is None


def test_errors_that_are_no_loss_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_fast.training.processes.several", lambda: True)
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("connection closed")):
        with pytest.raises(type(error), match=str(error)), noticing_loss(5, tmp_path):
            raise error
    sentence = "another of its processes ended; no checkpoint was saved yet"
    with pytest.raises(ConnectionError, match=sentence), noticing_loss(5, tmp_path):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
