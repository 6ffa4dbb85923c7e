"""ppl-fast doctor: which backends there are and whether they are right."""

from argparse import ArgumentParser


def main(arguments: list[str]) -> int:
    """Run the command; it needs no extra, so that it can tell which are missing."""
    ArgumentParser(
        prog="ppl-fast doctor",
        description="Print versions, the backend of every operator on every device, and a numeric self-test. "
        "Exit code 1 if a backend disagrees with the reference.",
    ).parse_args(arguments)
    from ppl_fast.doctor import main as examine

    return examine()
