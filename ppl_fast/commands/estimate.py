"""ppl-fast estimate: poses of images and videos, in pixels."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from ppl_fast._extras import needing
from ppl_fast._files import is_stream, readable
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
)

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ppl_fast.inference import Calibration, Estimation
    from ppl_fast.models import KeypointModel
    from ppl_fast.options.footage import Framing

DESCRIPTION = """Estimate the keypoints of every image and every frame of every video in a folder, or of one of them, in
pixels of the originals. Damaged files are named and have no rows, up to --max-bad-share of them."""

SOURCES = """folder of images and videos, searched recursively; one of them; a .pkg.slp; or shards, .tar or .parquet:
one, a folder or a pattern of them, also at an address such as s3://bucket/train-{0000..0099}.tar"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parse(_parser(), arguments)
    at_least(options, ahead=0, iterations=1)
    masks = _masks(options)

    with needing("ppl-fast estimate needs", "data"):
        from ppl_fast.data.sets import check_media
    from ppl_fast.inference import estimate, write

    kept = Path(f"{options.out}.parts") if options.resume else None
    options.run = fetch(options.run)
    model, joints = named_model(options.run, options)
    check_media(options.images)  # else outputs would be made for a source that is not there
    _check_outputs(options, Path(options.images))
    confidence = _confidence(options, model)
    poses = estimate(
        model,
        options.images,
        masks=masks,
        iterations=options.iterations,
        confidence=confidence,
        joints=joints,
        smooth=options.smooth,
        batch_size=options.batch_size,
        workers=options.workers,
        max_bad_share=options.max_bad_share,
        max_pixels=options.max_pixels,
        framing=_framing(options),
        progress=True,
        depth=options.ahead,
        keep=kept,
    )
    known = set(poses.media.skipped)
    # What goes to a stream, such as /dev/stdout, is not to be mixed with words.
    words = sys.stderr if any(map(is_stream, filter(None, (options.out, options.coco)))) else sys.stdout
    uncalibrated = "confidence is not calibrated: it tells frames apart, keypoints hardly; see ppl-fast calibrate"
    unsure = uncalibrated if confidence is True else ""
    for report in filter(None, (poses.media.report, poses.masks and poses.masks.report, unsure)):
        print(report, file=words)
    _write_boxes(options.boxes, poses, words)
    count = write(poses, **{"coco": options.coco, "overlay": options.overlay, options.format: options.out})
    if kept is not None:
        shutil.rmtree(kept)
    for name, reason in poses.media.skipped:
        if (name, reason) not in known:
            print(readable(f"skipped {name}: {reason}"), file=words)
    what = f"{len(joints.names)} joints" if joints else f"{model.config['num_keypoints']} keypoints"
    several = _several(options.out, poses)
    where = f"{len(several)} file{'s' * (len(several) > 1)}, one a video" if several else readable(options.out)
    print(f"wrote {count} poses of {what} to {where}", file=words)
    for path in several:
        print(f"wrote {readable(str(path))}", file=words)
    print(poses.waits, file=words)
    if poses.masks and poses.masks.whole:
        print(f"{poses.masks.whole} of them have nothing hidden", file=words)
    if options.coco:
        print(f"wrote {readable(options.coco)}", file=words)
    if options.overlay:
        print(f"wrote overlays to {readable(options.overlay)}", file=words)
    return 0


def _framing(options: Any) -> "Framing":
    """What is seen of images, which must be parts where their boxes are to be written."""
    framing = framing_for(options)
    if options.boxes and framing.crop is None:
        raise ValueError("--boxes writes those that a run looks into, and this one sees whole images; see train --crop")
    return framing


def _write_boxes(out: str | None, poses: "Estimation", words: TextIO) -> None:
    from ppl_fast.data.box_files import write_boxes

    if out:
        write_boxes(out, poses.media.boxes)
        print(f"wrote {len(poses.media.boxes)} boxes to {readable(out)}", file=words)


def _several(out: str, poses: "Estimation") -> list[Path]:
    """The files that an output with {} in its name has become."""
    from ppl_fast.inference.exchange import MANY, files_of

    found = files_of(Path(out), poses.schema.videos).values() if MANY in Path(out).name else ()
    return [path for path in found if path.is_file()]


def _parser() -> "ArgumentParser":
    """Of the command."""
    parser = command_parser("estimate", DESCRIPTION, "RUN IMAGES --out poses.csv [options]")
    add_run(parser)
    parser.add_argument("images", metavar="IMAGES", type=str, help=SOURCES)
    parser.add_argument(
        "--out",
        type=str,
        required=True,
        help="file to write; CSV: one row an image or frame, of videos with its time; dlc and sleap of several videos: "
        "with {} in its name, as poses/{}.csv, a file each",
    )
    parser.add_argument(
        "--format",
        type=Literal["csv", "dlc", "sleap", "coco", "npz", "parquet"],
        default="csv",
        help="of --out: csv; dlc, DeepLabCut's .csv or .h5; sleap, its analysis .h5; coco, .json; npz, NumPy's arrays; "
        "parquet, for large runs",
    )
    parser.add_argument("--coco", type=str | None, default=None, help="COCO keypoint JSON file to write as well")
    parser.add_argument(
        "--overlay",
        type=str | None,
        default=None,
        metavar="PATH",
        help="images and videos with their poses: a folder; for one video .mp4, .mov or .mkv, for one image .png",
    )
    _add_rounds(parser)
    parser.add_argument(
        "--confidence",
        type=bool | None,
        default=None,
        help="how sure each keypoint is, by ppl-fast calibrate where that was run; takes two more passes (default: yes "
        "for dlc, sleap and npz, and with --smooth)",
    )
    parser.add_argument(
        "--keypoints", action="store_true", help="write the keypoints, also where ppl-fast name has made joints of them"
    )
    parser.add_argument(
        "--smooth",
        action="store_true",
        help="of videos: smooth tracks over time, weighted by confidence, and fill gaps of up to half a second; gives "
        "confidence as well",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep poses in the folder OUT.parts as they are found, and go on from those that are there",
    )
    ahead = parser.add_argument(
        "--ahead", type=int, default=2, help="batches decoded ahead of the model, and waiting to be written behind it"
    )
    ahead.rare = True
    _add_boxes(parser)
    add_compute(parser)
    return parser


def _add_boxes(parser: "ArgumentParser") -> None:
    """Which parts of images are seen, and where they are written."""
    add_crop(parser)
    where = "CSV file to write the boxes to that were looked into, as --crop takes it"
    parser.add_argument("--boxes", type=str | None, default=None, metavar="FILE", help=where)


def _add_rounds(parser: "ArgumentParser") -> None:
    """What is hidden, and how often it is imagined."""
    parser.add_argument(
        "--mask",
        type=str | None,
        default=None,
        metavar="PATH",
        help="image, white where all images and frames are hidden, or a folder of them, one an image or video",
    )
    parser.add_argument(
        "--mask-color",
        type=str | None,
        default=None,
        metavar="R,G,B",
        help="colour, each 0 to 255, of what is hidden in the images; 10 more or less in each are taken for it, too",
    )
    parser.add_argument(
        "--iterations",
        type=int | None,
        default=None,
        help="passes of inference, 1 more than rounds: 3 with a mask where the model is iterative, else 1; without a "
        "mask rounds imagine the whole image anew and cost accuracy there",
    )


def _masks(options: Any) -> str | tuple[int, ...] | None:
    """What is hidden, as `ppl_fast.inference.estimate` takes it."""
    if options.mask is not None and options.mask_color is not None:
        raise ValueError("--mask and --mask-color exclude each other, got both")
    if options.mask_color is None:
        path: str | None = options.mask
        return path
    parts = options.mask_color.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) <= 255 for part in parts):
        raise ValueError(f"--mask-color must be three numbers from 0 to 255, as 255,0,255, got {options.mask_color}")
    return tuple(map(int, parts))


def _confidence(options: Any, model: "KeypointModel") -> "bool | Calibration":
    """Whether poses have confidence, and by which calibration."""
    from ppl_fast.inference import load_calibration
    from ppl_fast.training.run import find_model

    wanted = options.format in ("dlc", "sleap", "npz") if options.confidence is None else options.confidence
    if not (wanted or options.smooth):
        return False
    return load_calibration(find_model(options.run), model.settings.num_keypoints) or True


def _check_outputs(options: Any, source: Path) -> None:
    """Refuse outputs that cannot be written, or would take the place of something, before any work is done."""
    from ppl_fast.data.clips import find_media
    from ppl_fast.data.kinds import kind_of
    from ppl_fast.data.shards import find_shards
    from ppl_fast.data.video_writer import check_written
    from ppl_fast.inference.exchange import check_one_track
    from ppl_fast.inference.writers import EACH, check_paths

    paths = {f"--{name}": getattr(options, name) for name in ("out", "coco", "overlay", "boxes")}
    if options.resume and options.overlay:
        raise ValueError("--resume keeps poses and no images, which --overlay needs; leave one of them out")
    if options.resume and is_stream(options.out):
        raise ValueError(f"--resume needs a file for --out, beside which to keep poses, got {options.out}")
    if options.coco and options.format == "coco":
        raise ValueError("--coco writes what --format coco writes to --out; give one of them")
    kinds = {"--out": options.format, "--coco": "coco", "--overlay": "overlay", "--boxes": "csv"}
    outputs = {name: Path(path) for name, path in paths.items() if path}
    check_paths(source, outputs, alone=source.is_file() and kind_of(source) != "other", kinds=kinds)
    if options.format in EACH and source.is_dir() and not find_shards(source):
        images, videos, _ = find_media(source)
        check_one_track(options.format, bool(videos) and len(videos) + bool(images) > 1, Path(options.out))
    film = source.is_file() and kind_of(source) == "video"
    picture = source.is_file() and Path(options.overlay or "").suffix.lower() == ".png"
    overlay = options.overlay if film or picture else None
    if overlay and film:
        check_written(overlay)
    check_outputs(options.out, options.coco, options.boxes, overlay, folder=None if overlay else options.overlay)
