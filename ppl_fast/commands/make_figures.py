"""ppl-fast make-figures: draw a labelled set of articulated figures."""

from typing import Literal

from ppl_fast.commands.options import command_parser, parse

DESCRIPTION = """Draw articulated figures in random poses as PNG files, with keypoints.npz beside them for 'evaluate'.
The same options give the same files; the splits of one seed share backgrounds and clothing, not poses."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("make-figures", DESCRIPTION, "DIR --count N [options]")
    parser.add_argument("directory", metavar="DIR", type=str, help="new or empty folder")
    parser.add_argument("--count", type=int, required=True, help="number of images")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0, help="seed of poses, clothing and backgrounds")
    parser.add_argument("--kind", type=Literal["person", "animal"], default="person", help="what to draw")
    parser.add_argument(
        "--difficulty",
        type=Literal["lab", "studio", "wild"],
        default="lab",
        help="lab: 1 background, 4 outfits; studio: 6 shifted backgrounds, 8 outfits; wild: all new each time",
    )
    splits = Literal["train", "validation", "test"]
    parser.add_argument("--split", type=splits, default="train", help="decides the poses, beside the seed")
    parser.add_argument(
        "--masks", type=str | None, default=None, metavar="DIR2", help="new folder for masks, white where figures are"
    )
    options = parse(parser, arguments).as_dict()

    from ppl_fast.data import make_figures

    labels = make_figures(**options)
    print(f"drew {len(labels)} figures in {options['directory']}")
    return 0
