"""The command `ppl-fast`: finds the subcommand, and turns errors into one sentence and an exit code."""

import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib import import_module

from ppl_fast import _console, _waiting

COMMANDS = {
    "train": "learn a pose prior from a folder of images",
    "estimate": "estimate the poses of images and videos",
    "calibrate": "learn from labels how sure a trained model may be of its keypoints",
    "evaluate": "measure a trained model against labels",
    "name": "learn named joints from a few labels",
    "view": "write a page that shows a run in a browser",
    "show": "draw what a trained model has learned",
    "push": "send a trained model to the Hugging Face Hub",
    "export": "write a trained model as a file for other runtimes: ONNX, torch.export, AOTInductor",
    "convert": "turn a published PPL or AutoLink checkpoint into a model directory",
    "make-figures": "draw labelled figures to try things on",
    "doctor": "show backends and check them",
    "demo": "figures, training, evaluation and pictures in one go",
}
EXIT_USAGE, EXIT_UNEXPECTED, EXIT_INTERRUPTED = 2, 1, 130
EXPECTED = (ValueError, TypeError, OSError, ImportError, FloatingPointError)


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0, 1 (failed), 2 (wrong use or input), 130 (interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        with _console.lasting(), nullcontext() if debug else _console.sentences("ppl-fast: warning: "):
            return _run([argument for argument in arguments if argument != "--debug"], debug)
    except OSError as error:  # of the console itself, as where a disk is full
        with suppress(OSError):
            print(f"ppl-fast: error: the output cannot be printed: {error.strerror}", file=sys.stderr)
        return EXIT_UNEXPECTED


def _run(arguments: list[str], debug: bool) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else EXIT_USAGE
    if arguments[0] == "--version":
        print(_version())
        return 0
    _waiting.shorten()
    try:
        return _command(arguments[0])(arguments[1:])
    except SystemExit as leaving:  # --help and --print_config of a subcommand
        return leaving.code if isinstance(leaving.code, int) else 0
    except KeyboardInterrupt as interruption:
        print(f"\nppl-fast: {str(interruption) or 'interrupted'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"ppl-fast: error: {_sentence(error)}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, EXPECTED) else EXIT_UNEXPECTED


def _command(name: str) -> Callable[[list[str]], int]:
    if name not in COMMANDS:
        raise ValueError(f"unknown command {name!r}; expected one of {', '.join(COMMANDS)}")
    command: Callable[[list[str]], int] = import_module(f"ppl_fast.commands.{name.replace('-', '_')}").main
    return command


def _sentence(error: Exception) -> str:
    """The error's message on one line; of one raised in a loading process, the message raised there."""
    message = str(error).strip()
    if "Original Traceback" in message:
        message = message.splitlines()[-1].partition(": ")[2]
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
    message = " ".join(message.split()) or type(error).__name__
    return message if isinstance(error, EXPECTED) else f"{type(error).__name__}: {message} (--debug shows where)"


def _version() -> str:
    import torch

    import ppl_fast

    return f"ppl_fast {ppl_fast.__version__}, torch {torch.__version__}"


def _help() -> str:
    listed = "\n".join(f"  {name:<14}{what}" for name, what in COMMANDS.items())
    return (
        "usage: ppl-fast COMMAND ...\n\nLearn pose priors from unlabelled images.\n\n"
        f"commands:\n{listed}\n\n"
        "ppl-fast COMMAND --help describes a command; with --debug, errors come with their traceback."
    )


if __name__ == "__main__":
    sys.exit(main())
