"""ppl-fast estimate: poses of images and videos, in pixels."""

import sys
from pathlib import Path
from typing import Any

from ppl_fast._extras import needing
from ppl_fast._files import is_stream, readable
from ppl_fast.commands.options import (
    add_compute,
    add_crop,
    check_outputs,
    command_parser,
    framing_for,
    parse,
    ready_model,
)

DESCRIPTION = """Estimate the keypoints of every image and every frame of every video in a folder, or of one of them, in
pixels of the originals. Damaged files are named and have no rows, up to --max-bad-share of them."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("estimate", DESCRIPTION, "RUN IMAGES --out poses.csv [options]")
    parser.add_argument("run", metavar="RUN", type=str, help="run directory, checkpoint or saved model")
    parser.add_argument(
        "images", metavar="IMAGES", type=str, help="folder of images and videos, searched recursively, or one of them"
    )
    parser.add_argument(
        "--out", type=str, required=True, help="CSV file: one row an image or frame; of videos, with frame and seconds"
    )
    parser.add_argument("--coco", type=str | None, default=None, help="COCO keypoint JSON file to write as well")
    parser.add_argument(
        "--overlay",
        type=str | None,
        default=None,
        metavar="PATH",
        help="images and videos with their poses: a folder; for one video .mp4, .mov or .mkv, for one image .png",
    )
    parser.add_argument("--iterations", type=int, default=1, help="passes of inference, 1 more than rounds")
    parser.add_argument("--max-bad-share", type=float, default=0.1, help="share of unreadable files that are skipped")
    parser.add_argument("--max-pixels", type=int, default=100_000_000, help="that an image may decode to at once")
    add_crop(parser)
    add_compute(parser)
    options = parse(parser, arguments)
    if options.iterations < 1:
        raise ValueError(f"--iterations must be at least 1, got {options.iterations}")

    with needing("ppl-fast estimate needs", "data"):
        from ppl_fast.data.clips import find_media
    from ppl_fast.inference import estimate, write

    model = ready_model(options.run, options)
    find_media(Path(options.images))  # else outputs would be made for a source that is not there
    _check_outputs(options, Path(options.images))
    poses = estimate(
        model,
        options.images,
        iterations=options.iterations,
        batch_size=options.batch_size,
        workers=options.workers,
        max_bad_share=options.max_bad_share,
        max_pixels=options.max_pixels,
        framing=framing_for(options),
        progress=True,
    )
    known = set(poses.media.skipped)
    # What goes to a stream, such as /dev/stdout, is not to be mixed with words.
    words = sys.stderr if any(map(is_stream, filter(None, (options.out, options.coco)))) else sys.stdout
    if poses.media.report:
        print(poses.media.report, file=words)
    count = write(poses, csv=options.out, coco=options.coco, overlay=options.overlay)
    for name, reason in poses.media.skipped:
        if (name, reason) not in known:
            print(readable(f"skipped {name}: {reason}"), file=words)
    print(f"wrote {count} poses of {model.config['num_keypoints']} keypoints to {readable(options.out)}", file=words)
    if options.coco:
        print(f"wrote {readable(options.coco)}", file=words)
    if options.overlay:
        print(f"wrote overlays to {readable(options.overlay)}", file=words)
    return 0


def _check_outputs(options: Any, source: Path) -> None:
    """Refuse outputs that cannot be written, or would take the place of something, before any work is done."""
    from ppl_fast.data.video import VIDEO_SUFFIXES
    from ppl_fast.data.video_writer import check_written
    from ppl_fast.inference.writers import check_paths

    paths = {f"--{name}": getattr(options, name) for name in ("out", "coco", "overlay")}
    check_paths(source, {name: Path(path) for name, path in paths.items() if path}, alone=source.is_file())
    film = source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES
    picture = source.is_file() and Path(options.overlay or "").suffix.lower() == ".png"
    overlay = options.overlay if film or picture else None
    if overlay and film:
        check_written(overlay)
    check_outputs(options.out, options.coco, overlay, folder=None if overlay else options.overlay)
