"""ppl-fast demo: figures, training, evaluation and pictures in one go."""

from .options import command_parser, parse


def main(arguments: list[str]) -> int:
    """Run the command; its options are the arguments of `run_demo`."""
    from ppl_fast.demo import run_demo

    parser = command_parser("demo", "Learn a pose prior from drawn figures and show what was learned.", "[options]")
    parser.add_function_arguments(run_demo, as_positional=False)
    run_demo(**parse(parser, arguments).as_dict())
    return 0
