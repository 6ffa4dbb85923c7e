"""Names of images in labels, and the images that they mean."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence


def pair(labels: Sequence[str], images: Sequence[str]) -> list[tuple[int, int]]:
    """(label, image) by their numbers: which image each label means, in the order of the images.

    Names are the same whatever the separators, `./`, the form of accented letters (composed or not) and the encoding;
    then whatever the case of the suffix, and of the whole, where that is unique. Where no label has an image so, the
    folders that all labels, or all images, begin with are left out.
    """
    found = _paired([normal(name) for name in labels], [normal(name) for name in images])
    if not found:
        one, other = ([normal(name).split("/") for name in names] for names in (labels, images))
        for skipped, left in _shifts(_common(one), _common(other)):
            found = _paired(["/".join(parts[skipped:]) for parts in one], ["/".join(parts[left:]) for parts in other])
            if found:
                break
    return sorted(found, key=lambda each: each[1])


def normal(name: str) -> str:
    """A path with forward slashes, without `.`, doubled slashes and a leading one, in composed letters."""
    if any("\udc80" <= letter <= "\udcff" for letter in name):  # bytes that are no UTF-8: as Windows had them
        name = name.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    name = re.sub("^file://", "", name)
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _paired(labels: list[str], images: list[str]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    keys: tuple[Callable[[str], str], ...] = (str, _small_suffix, str.casefold)
    for key in keys:
        free = [
            {i: key(name) for i, name in enumerate(names) if i not in taken}
            for names, taken in ((labels, {i for i, _ in found}), (images, {i for _, i in found}))
        ]
        single = [{name for name, count in Counter(each.values()).items() if count == 1} for each in free]
        place = {name: i for i, name in free[1].items() if name in single[1]}
        found += [(i, place[name]) for i, name in free[0].items() if name in single[0] and name in place]
    return found


def _small_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem + suffix.lower()


def _common(paths: list[list[str]]) -> int:
    """How many folders all paths begin with."""
    shared = os.path.commonprefix([parts[:-1] for parts in paths])
    return len(shared)


def _shifts(labels: int, images: int) -> list[tuple[int, int]]:
    """How many leading folders of labels and of images to leave out, fewest first."""
    pairs = [(i, j) for i in range(labels + 1) for j in range(images + 1)]
    return sorted(pairs, key=sum)[1:]
