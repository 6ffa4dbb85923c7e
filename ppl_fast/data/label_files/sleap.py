"""Labels of SLEAP: projects (`.slp`, `.pkg.slp` with packed images) and analysis files (`.h5`), all HDF5.

(0, 0) is the centre of the top left pixel from format 1.1 of projects on, "midpixel coordinates" as SLEAP's writer
(`sleap.io.format.hdf5`) calls them; before, it was that pixel's outer corner, half a pixel away, and SLEAP moves what a
person labelled when it reads such a file. Analysis files have the coordinates of the labels in memory: centres.

A frame of a video goes by the video's name and its number, `walk.mp4/000012`, as in `ppl_fast.data.ClipFolder`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast._documents import parse_json
from ppl_fast._messages import short
from ppl_fast.data.hdf import RECORDS, Content, MissingError, content
from ppl_fast.data.label_files.deeplabcut import choose
from ppl_fast.data.label_files.sleap_videos import json_object, last, videos_of
from ppl_fast.data.labels import Labels

CENTRED = 1.1  # format of projects from which on integers are the centres of pixels
BY_HAND = 0  # type of an instance that a person labelled
NO_TRACK = -1  # in the place of a track's number
BONE = 1  # type of an edge; others say which joints mirror each other
FRAMES_FIRST = '["frame", "track", "node", "xy"]'  # what sleap-io notes where it was asked for that order
MOST_LABELS = 1 << 24


def is_analysis(path: Path) -> bool:
    """Whether an HDF5 file has the arrays of an analysis file."""
    with content(path) as found:
        return "tracks" in found and "node_names" in found


def read_slp(path: Path, individual: str | None = None) -> Labels:
    """Labels of a project: what a person placed, and not what SLEAP predicted.

    Args:
        path: of the .slp file.
        individual: name of the track to take, where there are several.

    Raises:
        ValueError: no such file, nothing labelled by hand, or several individuals and none of this name; the sentence
            names the file.
        ImportError: h5py is not installed.
    """
    with _blaming(path), content(path) as found:
        return _project(found, individual)


def read_analysis(path: Path, individual: str | None = None) -> Labels:
    """Labels of an analysis file, the frames that show anything of one track; see `read_slp`."""
    with _blaming(path), content(path) as found:
        names, tracks = found.texts("node_names"), found.read("tracks")
        if tracks.ndim == 4 and found.note("tracks", "dims") == FRAMES_FIRST:
            tracks = tracks.transpose(1, 3, 2, 0)
        if tracks.ndim != 4 or tracks.shape[1:3] != (2, len(names)) or tracks.size > MOST_LABELS:
            expected = f"(tracks, 2, {len(names)}, frames)"
            raise ValueError(f"tracks must have shape {expected}, {MOST_LABELS} numbers at most, got {tracks.shape}")
        there = found.texts("track_names") if "track_names" in found else []
        there = there if len(there) == len(tracks) else [f"track_{number}" for number in range(len(tracks))]
        track = tracks[there.index(choose(individual, there))].astype(np.float64)
        keypoints = track.transpose(2, 1, 0)  # (frames, nodes, 2)
        visible = np.isfinite(keypoints).all(axis=2)
        shown = np.flatnonzero(visible.any(axis=1))
        name = found.text("video_path") if "video_path" in found else ""
        name = last(name) or path.stem.removesuffix(".analysis")
        edges = found.read("edge_inds") if "edge_inds" in found else np.empty((0, 2))
        bones = [(int(i), int(j)) for i, j in edges.reshape(-1, 2)]
        return Labels([f"{name}/{frame:06d}" for frame in shown], keypoints[shown], visible[shown], names, bones)


def _project(found: Content, individual: str | None) -> Labels:
    version, about = found.note("metadata", "format_id"), json_object(found.note("metadata", "json"))
    frames, instances, points = (found.read(name, RECORDS) for name in ("frames", "instances", "points"))
    if len(points) > MOST_LABELS:
        raise ValueError(f"points must be at most {MOST_LABELS}, got {len(points)}")
    tracks = [str(_list(text)[1]) for text in found.texts("tracks_json")] if "tracks_json" in found else []
    by_frame: dict[int, list[Any]] = {}
    for instance in instances[instances["instance_type"] == BY_HAND]:
        by_frame.setdefault(int(instance["frame_id"]), []).append(instance)
    if not by_frame:
        raise ValueError("it holds nothing that was labelled by hand")
    chosen = _chosen(by_frame, tracks, individual)
    names, bones = _skeleton(about, sorted({int(instance["skeleton"]) for instance in chosen}))
    where, files = {int(frame["frame_id"]): frame for frame in frames}, []
    videos = videos_of(found)
    keypoints = np.full((len(chosen), len(names), 2), np.nan)
    visible = np.zeros((len(chosen), len(names)), dtype=bool)
    for row, instance in enumerate(chosen):
        frame = where[int(instance["frame_id"])]
        files.append(videos[int(frame["video"])].frame(int(frame["frame_idx"])))
        of = points[int(instance["point_id_start"]) : int(instance["point_id_end"])]
        if len(of) != len(names):
            raise ValueError(f"{files[-1]} must have {len(names)} points, got {len(of)}")
        keypoints[row, :, 0], keypoints[row, :, 1] = of["x"], of["y"]
        visible[row] = of["visible"].astype(bool) & np.isfinite(keypoints[row]).all(axis=1)
    if float(version or 0) < CENTRED:
        keypoints -= 0.5
    return Labels(files, keypoints, visible, names, bones)


def _chosen(by_frame: dict[int, list[Any]], tracks: list[str], individual: str | None) -> list[Any]:
    """Of each frame the instance that counts."""
    used = sorted({int(each["track"]) for group in by_frame.values() for each in group})
    several = any(len(group) > 1 for group in by_frame.values())
    if individual is None and not several and len({*used} - {NO_TRACK}) <= 1:
        return [group[0] for group in by_frame.values()]
    named = {tracks[number]: number for number in used if 0 <= number < len(tracks)}
    if not named:
        raise ValueError("some of its frames show several individuals, and no tracks name them")
    number = named[choose(individual, list(named))]
    found = {frame: [each for each in group if each["track"] == number] for frame, group in by_frame.items()}
    return [group[0] for group in found.values() if group]


def _skeleton(about: dict[str, Any], used: list[int]) -> tuple[list[str], list[tuple[int, int]]]:
    """Names of the joints of the one skeleton that is used, and its bones."""
    if len(used) != 1:
        raise ValueError(f"its labels must be of one skeleton, got {len(used)}")
    skeleton = about["skeletons"][used[0]]
    if not skeleton.get("nodes"):
        raise ValueError(f"its labels must be of one skeleton, got {len(about['skeletons'])}, that one without nodes")
    places = [node["id"] for node in skeleton["nodes"]]
    names = [str(about["nodes"][place]["name"]) for place in places]
    bones = []
    for link in skeleton.get("links") or []:
        kind = link["type"]  # jsonpickle's: the first of a kind is written out, others refer to it by its number
        number = kind["py/reduce"][1]["py/tuple"][0] if "py/reduce" in kind else kind["py/id"]
        if number == BONE:
            bones.append((places.index(link["source"]), places.index(link["target"])))
    return names, bones


def _list(text: str) -> list[Any]:
    found = parse_json(text)
    if not isinstance(found, list) or len(found) < 2:
        raise ValueError(f"expected a list of JSON, got {short(found)}")
    return found


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """One sentence about the file, whatever is wrong within it."""
    try:
        yield
    except MissingError as error:
        raise ValueError(f"load_labels: {path} is no label file of SLEAP: it lacks an array") from error
    except KeyError as error:
        raise ValueError(f"load_labels: {path} is no valid label file of SLEAP: it lacks {error}") from error
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"load_labels: {path} is no valid label file of SLEAP: {reason}") from error
