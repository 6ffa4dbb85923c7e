"""Processes that train together as by torchrun, without its start-up: a server has all imported, and forks."""

import multiprocessing
import os
import socket
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["ppl_fast.training.entry", "torch._dynamo"])
LONGEST = 120  # seconds that a test waits


class Ranks:
    """`work(rank, *arguments)` in several processes; they print to files, and answer with what is pickled.

    A context: processes that are still there at its end are killed.
    """

    def __init__(self, folder: Path, work, *arguments, count: int = 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder.mkdir(exist_ok=True)
        self.folder, self.processes, self.answers = folder, [], []
        for rank in range(count):
            here, there = CONTEXT.Pipe(duplex=False)
            given = (folder / f"{rank}.txt", rank, count, port, there, work, arguments)
            self.processes.append(CONTEXT.Process(target=_run, args=given))
            self.answers.append(here)

    def __enter__(self) -> "Ranks":
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for the server, which begins with the first process
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def answer(self, rank: int = 0, within: float = LONGEST):
        """What the work gave in one process; an exception where it raised one."""
        assert self.answers[rank].poll(within), f"process {rank} is silent:\n{self.printed(rank)}"
        try:
            return self.answers[rank].recv()
        except EOFError:
            raise AssertionError(f"process {rank} ended without an answer:\n{self.printed(rank)}") from None

    def printed(self, rank: int = 0) -> str:
        file = self.folder / f"{rank}.txt"
        return file.read_text() if file.exists() else ""


def together(folder: Path, work, *arguments, count: int = 2) -> list:
    """What `work(rank, *arguments)` gives in each of several processes that train together."""
    with Ranks(folder, work, *arguments, count=count) as ranks:
        found = [ranks.answer(rank) for rank in range(count)]
        for rank, each in enumerate(found):
            assert not isinstance(each, Exception), f"process {rank}:\n{ranks.printed(rank)}"
        return found


def _run(printed: Path, rank: int, count: int, port: int, answer, work, arguments) -> None:
    import torch

    named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in named.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    with open(printed, "w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            answer.send(work(rank, *arguments))
        except BaseException as error:
            traceback.print_exc()
            answer.send(error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}"))
    os._exit(0)  # without waiting for others, which may be gone
