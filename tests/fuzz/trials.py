"""Trials in a child process with limits of time and memory, and a watch on what they do outside of their folder.

The child is a fork of a process that has imported everything and read nothing; it serves trial after trial, and where
it dies or is stopped another takes its place. Python tells it of every file that is opened, process that is started
and connection that is made; for what libraries in C open, a folder beside that of the trials is watched by inotify.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from formats import FORMATS, Format

from ppl_fast.data import LayoutError

EXPECTED = (ValueError, OSError)
GIGABYTE = 1 << 30
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect")
OPENED, CHANGED = 0x20, 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200  # events of inotify


class Child:
    """A process that tries files in a folder; `run` gives the outcome of one.

    Args:
        folder: of the trials.
        seconds: that one may take.
        memory: bytes that the process may take on top of what it starts with.
    """

    def __init__(self, folder: Path, seconds: float, memory: int = 2 * GIGABYTE):
        self.folder, self.seconds, self.memory = folder, seconds, memory
        self.restarts = -1
        self._stack = folder.parent / "stack.txt"
        self._start()

    def run(self, name: str) -> tuple[str, str]:
        """Outcome and detail of a trial of this format, whose files are in the folder.

        The outcome is "read", "refused", "unexpected", "outside", "crash" or "hang".
        """
        self._pipe.send(name)
        if self._pipe.poll(self.seconds):
            try:
                return self._pipe.recv()
            except EOFError:
                self._process.join()
                outcome = "crash", f"exit code {self._process.exitcode}"
        else:
            stack = [line.strip() for line in self._stack.read_text().splitlines() if line.startswith("  File")]
            outcome = "hang", f"no end in {self.seconds} s; {'; '.join(stack[:2])}"
        self.close()
        self._start()
        return outcome

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        arguments = theirs, self.folder, self.memory, self._stack, 0.8 * self.seconds
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.restarts += 1


class Watch:
    """What happens to the files of a folder, whoever does it."""

    def __init__(self, folder: Path):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.inotify_init1(os.O_NONBLOCK)
        if self._file < 0 or self._libc.inotify_add_watch(self._file, os.fsencode(folder), OPENED | CHANGED) < 0:
            raise OSError(ctypes.get_errno(), "inotify is not to be had")

    def happened(self) -> bool:
        """Whether anything did since the last call."""
        try:
            return bool(os.read(self._file, 1 << 16))
        except BlockingIOError:
            return False


def attempt(form: Format, folder: Path) -> tuple[str, str]:
    """Outcome and detail of one trial in this process: read, refused in one line that names the file, or unexpected."""
    try:
        form.read(folder)
    except EXPECTED as error:
        sentence = str(error)
        several = "\n" in sentence.strip() and not isinstance(error, LayoutError)  # which shows the layout expected
        if several or not (form.name in sentence or str(folder) in sentence):
            return "unexpected", f"no sentence about the file: {type(error).__name__}: {sentence[:300]}"
        return "refused", ""
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "unexpected", f"{type(error).__name__}: {str(error)[:200]} at {Path(place.filename).name}:{place.lineno}"
    return "read", ""


def in_a_process(task: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, run in a process of its own: threads that it starts are in no fork's way."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(task, *arguments).result()


def _serve(pipe, folder: Path, memory: int, stack: Path, late: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.disable()  # pytest's: a crash is told by the parent
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    told = open(stack, "w")  # noqa: SIM115 - closed with the process
    events: list[str] = []
    sys.addaudithook(_listener(events, folder))
    watch = Watch(folder.parent / "outside")
    while True:
        form = FORMATS[pipe.recv()]
        events.clear()
        faulthandler.dump_traceback_later(late, file=told)
        outcome = attempt(form, folder)
        faulthandler.cancel_dump_traceback_later()
        if watch.happened():
            events.append("a file outside was opened by a library")
        pipe.send(("outside", events[0]) if events else outcome)


def _listener(events: list[str], folder: Path):
    """A hook that keeps what leaves the folder; modules and the lists of the system's devices are imported and read."""
    free = tuple(map(os.path.realpath, (sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), folder)))
    own = os.path.realpath(Path(__file__).parents[2])

    def listen(event: str, arguments: tuple) -> None:
        if event.startswith(STARTS):
            events.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            code = path.startswith(own) and path.endswith((".py", ".pyc", ".egg-info/entry_points.txt"))
            scratch = path.startswith("/tmp/ppl_fast_frames_")
            if not (path.startswith((*free, "/proc/", "/sys/", "/dev/null")) or code or scratch):
                events.append(f"open {path}")

    return listen
