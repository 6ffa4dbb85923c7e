"""Labels of frames in videos, brought together with the videos in a folder."""

import re
from dataclasses import replace
from pathlib import Path

from ppl_fast._files import readable
from ppl_fast.data.clips import find_media
from ppl_fast.data.kinds import VIDEO_SUFFIXES
from ppl_fast.data.labels import Labels
from ppl_fast.data.names import pair

FRAME = re.compile(r"(.*)/(\d{6,})", re.DOTALL)  # walk.mp4/000012


def in_media(labels: Labels, root: Path) -> tuple[Labels, set[str]]:
    """Labels whose frames of videos go by the names of the videos in `root`, and those names where there are any.

    Where labels name frames, the images that they name are among the names, too.

    Raises:
        ValueError: labels name frames of videos alone, and none of these videos is there.
    """
    images, videos, _ = find_media(root)
    parts = [FRAME.fullmatch(file) for file in labels.files]
    frames = [part if part and Path(part[1]).suffix.lower() in VIDEO_SUFFIXES else None for part in parts]
    named = list(dict.fromkeys(part[1] for part in frames if part))
    there = list(videos)
    found = {named[i]: there[j] for i, j in pair(named, there)}
    if named and not found and None not in frames:
        raise ValueError(
            f"the labels are of other videos than those in {root}: of {readable(named[0])}, and not of "
            f"{readable(there[0]) if there else 'any'}"
        )
    files = [
        f"{found[part[1]]}/{part[2]}" if part and part[1] in found else file
        for part, file in zip(frames, labels.files, strict=True)
    ]
    labels = replace(labels, files=files)
    if not found:
        return labels, set()
    of_videos = {file for file, part in zip(files, frames, strict=True) if part}
    return labels, of_videos | {images[position] for position in labels.match(images)[0]}
