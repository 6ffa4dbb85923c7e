"""A GIF is a video if it moves, and else an image, wherever it is read."""

import pytest

pytest.importorskip("av", reason="videos need the video extra")

from PIL import Image
from video_files import drawn, record

from ppl_fast.data import ClipFolder, ImageFolder, open_set
from ppl_fast.data.kinds import kind_of
from ppl_fast.inference import open_source


@pytest.fixture
def gifs(tmp_path):
    Image.fromarray(drawn(0)).save(tmp_path / "still.gif")
    record(tmp_path / "film.gif")
    return tmp_path


def test_kinds_of_files(gifs):
    (gifs / "broken.gif").write_bytes(b"GIF89a")
    kinds = {"still.gif": "image", "film.gif": "video", "broken.gif": "image", "none.gif": "image", "a.txt": "other"}
    assert {name: kind_of(gifs / name) for name in kinds} == kinds
    (gifs / "code.ts").write_text("export const a = 1;")
    assert kind_of(gifs / "code.ts") == "other" and kind_of(record(gifs / "film.ts")) == "video"
    assert kind_of(gifs / "a.JPG") == "image" and kind_of(gifs / "a.MKV") == "video"


def test_data_sets(gifs):
    images = ImageFolder(gifs, 16)
    assert images.paths == ["still.gif"] and images.ignored == ["film.gif"]
    for clips in (ClipFolder(gifs, 16), open_set(gifs, 16).dataset):
        assert clips.paths == ["still.gif", *(f"film.gif/{i:06d}" for i in range(12))]
    with pytest.raises(ValueError, match=r"film\.gif"):
        ImageFolder(gifs / "film.gif", 16)


def test_estimation(gifs):
    assert [part.length for part in open_source(gifs, 16).parts] == [1, 12]
    for name, moving in (("still.gif", False), ("film.gif", True)):
        media = open_source(gifs / name, 16)
        assert media.single and media.moving == moving and len(media.parts) == 1
