"""The videos that a SLEAP project lists: what their frames are called, and which images of them lie in the project.

A packed project (`.pkg.slp`) holds the frames that somebody labelled: `videoN/video`, either uint8 or int8 (n, L),
whose rows are image files filled up with zeros, or n runs of bytes; or plain pixels (n, H, W, C). `frame_numbers` says
which frames of the video they are, `source_video` what the video was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ppl_fast._documents import parse_json
from ppl_fast._messages import short
from ppl_fast.data.hdf import Content

GROUP = re.compile(r"video(\d+)/video")


@dataclass(frozen=True)
class Listed:
    """A video, or a list of images.

    Attributes:
        name: of the video, as far as it takes to tell it from the others; or the names of the images.
        packed: the array of its images in the project; None where it has none.
    """

    name: str | list[str]
    packed: str | None = None

    def frame(self, number: int) -> str:
        """The name of an image, or of a frame of a video."""
        return self.name[number] if isinstance(self.name, list) else f"{self.name}/{number:06d}"


def videos_of(found: Content) -> dict[int, Listed]:
    """The videos of a project by the number that frames have of them."""
    listed = [json_object(text) for text in found.texts("videos_json")]
    packed = [_packed(video) for video in listed]
    named = [
        _named(video) if array is None else _named(_source(found, video, array), array.removesuffix("/video"))
        for video, array in zip(listed, packed, strict=True)
    ]
    paths = [each for each in named if isinstance(each, str)]
    names = [each if isinstance(each, list) else _distinct(each, paths) for each in named]
    return dict(zip(_numbers(found, packed), map(Listed, names, packed), strict=True))


def json_object(raw: Any) -> dict[str, Any]:
    """An object of JSON."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object of JSON, got {short(value)}")
    return value


def last(name: str) -> str:
    """The last part of a path of any system."""
    return PurePosixPath(name.replace("\\", "/")).name


def _packed(video: dict[str, Any]) -> str | None:
    backend = video.get("backend") or {}
    if backend.get("filename", video.get("filename")) != ".":
        return None
    if "dataset" not in backend:
        raise ValueError("its images are packed into it, and it does not say where")
    array = str(backend["dataset"])
    return array if array.endswith("/video") else f"{array}/video"


def _source(found: Content, video: dict[str, Any], array: str) -> dict[str, Any]:
    """What was packed: a video or images as a project that does not pack them lists these."""
    group = array.removesuffix("/video")
    for kind in ("source_video", "original_video"):
        if f"{group}/{kind}/json" in found:
            return json_object(found.text(f"{group}/{kind}/json"))
        if f"{group}/{kind}" in found and (note := found.note(f"{group}/{kind}", "json")) is not None:
            return json_object(note)
        if video.get(kind):
            return dict(video[kind])
    return {}


def _named(video: dict[str, Any], otherwise: str = "video") -> str | list[str]:
    """The path of a video as the project has it, or those of images; another name where there is none."""
    backend = video.get("backend") or {}
    for images in (
        backend.get("filenames"),
        backend.get("image_filenames"),
        backend.get("filename"),
        video.get("filename"),
    ):
        if isinstance(images, list):
            return [str(image) for image in images]
    path = str(backend.get("filename") or video.get("filename") or otherwise).replace("\\", "/")
    return otherwise if path == "." else path


def _distinct(path: str, paths: list[str]) -> str:
    """The last parts of a path, as few as tell it from the others."""
    parts = [part for part in path.split("/") if part]
    others = {other for other in paths if other != path}
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[-count:])
        if not any(f"/{other}".endswith(f"/{name}") for other in others):
            return name
    return "/".join(parts)


def _numbers(found: Content, packed: list[str | None]) -> list[int]:
    """What frames call the videos: their place in the list, or in older projects the number of their group."""
    places = [*range(len(packed))]
    used = {int(number) for number in found.read("frames", "biufSV")["video"]}
    groups = [GROUP.fullmatch(array or "") for array in packed]
    if used <= {*places} or not all(groups):
        return places
    return [int(group[1]) for group in groups if group]
