"""ppl-fast estimate: poses of images and videos, in pixels."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ppl_fast.data import ImageFolder, to_pixels, write_coco, write_csv
from ppl_fast.data.clips import check_share, find_media, open_videos
from ppl_fast.data.image_set import normalised, resized
from ppl_fast.data.video import Video, check_written, video_writer
from ppl_fast.evaluation import predict
from ppl_fast.visualization import save_overlay
from ppl_fast.visualization._draw import draw_pose, pose_arrays

from .options import add_compute, check_outputs, command_parser, parse, ready_model

if TYPE_CHECKING:
    from PIL import Image

DESCRIPTION = """Estimate the keypoints of every image and every frame of every video in a folder, or of one video, in
pixels of the originals."""
OVERLAY_SIZE = 0.65  # of lines and dots; as `save_overlay` draws them


class Pose(NamedTuple):
    """A row of the output: where the pose was found, and its keypoints (N, 2), (x, y) in pixels of size (W, H)."""

    file: str
    size: tuple[int, int]
    keypoints: np.ndarray
    frame: int | None = None  # in a video, counted from 0
    time: float | None = None  # seconds since its first frame

    @property
    def name(self) -> str:
        """The file, with the frame of a video as `ClipFolder` names it."""
        return self.file if self.frame is None else f"{self.file}/{self.frame:06d}"


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

    source = Path(options.images)
    model = ready_model(options.run, options)
    images, videos, others = find_media(source)
    single = source.is_file()
    _check_outputs(options, source)
    opened = {source.name: Video(source)} if single else _opened(videos, options.max_bad_share)
    poses = _image_poses(model, options, others) if images else []
    for name, video in opened.items():
        overlay = options.overlay and (Path(options.overlay) if single else Path(options.overlay, f"{name}.mp4"))
        poses += _video_poses(model, name, video, overlay, options)
    _write(options, poses, bool(videos), model)
    return 0


def _check_outputs(options: Any, source: Path) -> None:
    """Refuse outputs that cannot be written, or would take the place of the video, before any work is done."""
    for option in ("out", "coco", "overlay"):
        path = getattr(options, option)
        if path and Path(path).resolve() == source.resolve():
            raise ValueError(f"--{option} must not be the input itself, got {path}")
    overlay = options.overlay if source.is_file() else None
    if overlay:
        check_written(overlay)
    check_outputs(options.out, options.coco, overlay, folder=None if overlay else options.overlay)


def _opened(videos: dict[str, Path], max_bad_share: float) -> dict[str, Video]:
    """The videos that open, by name; says how many do, and which do not."""
    opened, skipped = open_videos(videos)
    check_share(skipped, len(videos), max_bad_share)
    if videos:
        print(f"{len(opened)} video{'s' * (len(opened) != 1)}")
    for name, reason in skipped:
        print(f"skipped {name}: {reason}")
    return opened


def _image_poses(model, options: Any, others: list[str]) -> list[Pose]:
    """Poses of a folder's images; with an overlay folder, each drawn there under its relative path, suffix included:
    a.jpg and a.png must not share a name."""
    from tqdm import tqdm

    size = model.config["image_size"]
    dataset = ImageFolder(options.images, size, max_bad_share=options.max_bad_share)
    dataset.ignored = others  # not the videos
    print(dataset.report())
    found = predict(
        model, dataset, iterations=options.iterations, batch_size=options.batch_size, workers=options.workers
    )
    found = to_pixels(found, size, dataset.original_sizes)
    if options.overlay:
        links, weights = model.links, model.link_weights()
        for i, path in enumerate(tqdm(dataset.paths, desc="overlays", unit="image", disable=None)):
            save_overlay(Path(options.overlay, f"{path}.png"), dataset.original(i), found[i], links, weights)
    return [Pose(*row) for row in zip(dataset.paths, dataset.original_sizes, found, strict=True)]


def _video_poses(model, name: str, video: Video, overlay: Path | None, options: Any) -> list[Pose]:
    """Poses of a video's frames, batch by batch as they are decoded; with an overlay, the frames written with them."""
    from tqdm import tqdm

    poses, frames, size = [], video.frames(), model.config["image_size"]
    if overlay:
        overlay.parent.mkdir(parents=True, exist_ok=True)
    with (
        tqdm(total=video.length, desc=name, unit="frame", disable=None) as bar,
        video_writer(overlay, video.size, video.rate, video.tick) if overlay else nullcontext() as write,
    ):
        while batch := list(islice(frames, options.batch_size)):
            pixels = torch.stack([resized(frame.image, size) for frame in batch]).to(model.links.device)
            found = model.estimate(normalised(pixels), iterations=options.iterations)
            found = to_pixels(found.cpu().double().numpy(), size, video.size)
            found, links, weights = pose_arrays("estimate", found, model.links, model.link_weights())
            for frame, points in zip(batch, found, strict=True):
                poses.append(Pose(name, video.size, points, frame.number, frame.time))
                if write:
                    write(_posed(frame.image, points, links, weights), frame.time)
            bar.update(len(batch))
    return poses


def _posed(image: Image.Image, points: np.ndarray, links: np.ndarray, weights: np.ndarray) -> Image.Image:
    """The frame with its pose as `save_overlay` draws it, but at the frame's size, and only where there is any: the
    supersampling that smooths lines costs by the pixel."""
    side = min(image.size)
    margin = 0.03 * side  # more than a dot's radius
    left, top = np.floor(points.min(axis=0) - margin).clip(0).astype(int).tolist()
    right, bottom = np.ceil(points.max(axis=0) + margin).clip(None, image.size).astype(int).tolist()
    if right <= left or bottom <= top:
        return image
    part = image.crop((left, top, right, bottom))
    drawn = draw_pose(part, points - (left, top), links, weights, size=OVERLAY_SIZE * side / min(part.size))
    image.paste(drawn, (left, top))
    return image


def _write(options: Any, poses: list[Pose], moving: bool, model) -> None:
    """The poses as CSV, with columns for frame and time where there are videos, and as COCO if asked for."""
    keypoints = np.stack([pose.keypoints for pose in poses])
    times = [None if pose.time is None else f"{pose.time:.6f}" for pose in poses]
    columns = {"frame": [pose.frame for pose in poses], "time": times} if moving else None
    write_csv(options.out, [pose.file for pose in poses], keypoints, columns=columns)
    print(f"wrote {len(poses)} poses of {model.config['num_keypoints']} keypoints to {options.out}")
    if options.coco:
        names, sizes = [pose.name for pose in poses], [pose.size for pose in poses]
        write_coco(options.coco, names, keypoints, sizes, skeleton=model.links.tolist())
        print(f"wrote {options.coco}")
    if options.overlay:
        print(f"wrote overlays to {options.overlay}")
