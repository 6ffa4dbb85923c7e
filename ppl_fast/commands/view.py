"""ppl-fast view: a run as one HTML file to look at."""

from typing import Any

from ppl_fast._extras import needing
from ppl_fast._files import readable
from ppl_fast.commands.footage import add_crop, framing_for
from ppl_fast.commands.options import (
    add_compute,
    add_run,
    at_least,
    check_outputs,
    command_parser,
    fetch,
    named_model,
    parse,
    place,
)

DESCRIPTION = """Write one HTML file that shows a run in a browser, without a network: the prior over training, links
by weight, the memory's vectors, evaluations; and with SOURCE, a folder of images and videos or one of them, the poses
found there, the least plausible first, and the rounds of iterative inference under occlusion. What a model does not
have, such as AutoLink a prior, is not there."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("view", DESCRIPTION, "RUN [SOURCE] [--out page.html] [options]")
    add_run(parser)
    parser.add_argument("source", metavar="SOURCE", nargs="?", type=str, help="images or videos to find poses in")
    parser.add_argument("--out", type=str | None, default=None, help="HTML file to write (default: RUN/page.html)")
    parser.add_argument("--frames", type=int, default=600, help="images and frames to show, about, spread evenly")
    parser.add_argument("--iterations", type=int, default=1, help="passes of inference, 1 more than rounds")
    add_crop(parser)
    add_compute(parser)
    options = parse(parser, arguments)
    at_least(options, frames=1, iterations=1)

    with needing("ppl-fast view needs", "data"):
        from ppl_fast.data.sets import check_media
        from ppl_fast.page import write_page
        from ppl_fast.page.document import check_path

    out = place(options.out, options.run, "page.html")
    check_path(out)
    options.run = fetch(options.run)
    model, joints = named_model(options.run, options)
    estimation: dict[str, Any] = {}
    if options.source is not None:
        check_media(options.source)  # else a folder would be made for a source that is not there
        names = ("iterations", "batch_size", "workers", "max_bad_share", "max_pixels")
        estimation = {name: getattr(options, name) for name in names}
        estimation |= {"framing": framing_for(options), "progress": True}
    check_outputs(out)
    estimation |= {"model": model, "joints": joints, "frames": options.frames}
    page = write_page(out, options.run, options.source, **estimation)
    for name, reason in page.skipped:
        print(readable(f"skipped {name}: {reason}"))
    poses = page.data["poses"]
    shown = f", {len(poses['pictures'])} pictures" if poses else ""
    print(f"wrote {readable(str(out))}: {out.stat().st_size / 1e6:.1f} MB{shown}")
    return 0
