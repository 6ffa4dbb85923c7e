"""ppl-fast estimate: poses of images and videos, in pixels."""

from pathlib import Path
from typing import Any

from ppl_fast._extras import needing
from ppl_fast.commands.options import add_compute, check_outputs, command_parser, parse, ready_model

DESCRIPTION = """Estimate the keypoints of every image and every frame of every video in a folder, or of one video, in
pixels of the originals."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("estimate", DESCRIPTION, "RUN IMAGES --out poses.csv [options]")
    parser.add_argument("run", metavar="RUN", type=str, help="run directory, checkpoint or saved model")
    parser.add_argument(
        "images", metavar="IMAGES", type=str, help="folder of images and videos, searched recursively, or one video"
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
        help="images and videos with their poses: a folder, or for one video a video (.mp4, .mov, .mkv)",
    )
    parser.add_argument("--iterations", type=int, default=1, help="passes of inference, 1 more than rounds")
    parser.add_argument("--max-bad-share", type=float, default=0.1, help="share of unreadable files that are skipped")
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
        progress=True,
    )
    if poses.media.report:
        print(poses.media.report)
    count = write(poses, csv=options.out, coco=options.coco, overlay=options.overlay)
    print(f"wrote {count} poses of {model.config['num_keypoints']} keypoints to {options.out}")
    if options.coco:
        print(f"wrote {options.coco}")
    if options.overlay:
        print(f"wrote overlays to {options.overlay}")
    return 0


def _check_outputs(options: Any, source: Path) -> None:
    """Refuse outputs that cannot be written, or would take the place of the video, before any work is done."""
    from ppl_fast.data.video_writer import check_written
    from ppl_fast.inference.writers import refuse_source

    paths = {f"--{name}": getattr(options, name) for name in ("out", "coco", "overlay")}
    refuse_source(source, {name: Path(path) for name, path in paths.items() if path})
    overlay = options.overlay if source.is_file() else None
    if overlay:
        check_written(overlay)
    check_outputs(options.out, options.coco, overlay, folder=None if overlay else options.overlay)
