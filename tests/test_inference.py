"""Poses from Python: sources, and batches one at a time."""

import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")

from inference_cases import Counted, Finder, S
from PIL import Image

from ppl_fast import evaluation
from ppl_fast.data import ClipFolder, ImageFolder, to_pixels
from ppl_fast.inference import collect, estimate, open_source, predict


def found(images, sizes, iterations=1):
    """Normalised keypoints, and in pixels, as the model alone gives them."""
    keypoints = Finder().estimate(images, iterations).double().numpy()
    return keypoints, to_pixels(keypoints, S, sizes)


def test_a_folder_of_images(images):
    dataset = ImageFolder(images, S)
    batches = list(estimate(Finder(), images, batch_size=4, iterations=2))
    assert [len(poses) for poses in batches] == [4, 4, 2]
    normalised, keypoints = found(torch.stack(list(dataset)), dataset.original_sizes, iterations=2)
    everything = collect(batches)
    assert everything.names == everything.unique_names == dataset.paths
    np.testing.assert_array_equal(everything.normalised, normalised)
    np.testing.assert_array_equal(everything.keypoints, keypoints)
    assert everything.sizes.tolist() == [[40, 30]] * 10
    assert everything.frames == everything.times == [None] * 10
    np.testing.assert_array_equal(np.asarray(batches[1].image(2)), np.asarray(dataset.original(6)))


def test_a_video_and_a_folder_with_videos(clips):
    from ppl_fast.data.video import Video

    video = Video(clips / "clip3.mp4")
    for source in (video.path, str(video.path), video):
        batches = list(estimate(Finder(), source, batch_size=5))
        assert [poses.frames for poses in batches] == [[0, 1, 2, 3, 4], [5, 6]]
        for poses in batches:
            assert poses.names == ["clip3.mp4"] * len(poses) and poses.video.path == video.path
            assert poses.sizes.tolist() == [list(video.size)] * len(poses)
    frames = list(video.frames())
    assert batches[0].times + batches[1].times == [frame.time for frame in frames]
    assert batches[1].unique_names == ["clip3.mp4/000005", "clip3.mp4/000006"]
    np.testing.assert_array_equal(np.asarray(batches[1].image(1)), np.asarray(frames[6].image))

    estimation = estimate(Finder(), clips, batch_size=4)
    assert "2 videos\n14 images in" in estimation.media.report
    batches = list(estimation)
    assert [{*poses.names} for poses in batches if poses.video] == [{"clip3.mp4"}] * 2 + [{"far/b.avi"}] * 2
    together = collect(batches)
    assert len(together) == 14 + 7 + 5 and together.unique_names[-1] == "far/b.avi/000004"
    alone = collect(estimate(Finder(), clips / "clip3.mp4"))
    np.testing.assert_allclose(together.keypoints[14:21], alone.keypoints, atol=1e-5)


def test_tensors_and_data_sets_are_their_own_originals():
    images = torch.rand(5, 3, S, S) * 2 - 1
    normalised, keypoints = found(images, (S, S))
    for source in (images, list(images)):
        poses = collect(estimate(Finder(), source, batch_size=2))
        np.testing.assert_array_equal(poses.normalised, normalised)
        np.testing.assert_array_equal(poses.keypoints, keypoints)
        assert poses.names == [f"{i:06d}" for i in range(5)]
    last = list(estimate(Finder(), images, batch_size=2))[-1].image(0)
    np.testing.assert_allclose(np.asarray(last), (images[4].permute(1, 2, 0) + 1).numpy() * 127.5, atol=0.51)
    np.testing.assert_array_equal(predict(Finder(), images, batch_size=3, progress=False), normalised)
    with pytest.raises(ValueError, match="predict: images must hold at least one, got none"):
        predict(Finder(), images[:0])
    assert evaluation.predict is predict


def test_one_batch_at_a_time_is_loaded_and_kept():
    dataset = Counted(1000)
    estimation = estimate(Finder(), dataset, batch_size=10)
    assert dataset.loaded == 0
    alive = weakref.WeakSet()
    for number, poses in enumerate(estimation, start=1):
        alive.add(poses)
        assert dataset.loaded == 10 * number and len(alive) <= 2
    assert number == 100


def test_one_batch_of_frames_at_a_time_is_decoded_and_kept(clips, monkeypatch):
    from ppl_fast.data.video import Video

    decoded, kept, frames = [], [], Video.frames

    def counted(self, **options):
        assert options["size"] == S  # large frames come reduced
        for frame in frames(self, **options):
            decoded.append(frame.number)
            kept.append(weakref.ref(frame.image))
            yield frame

    monkeypatch.setattr(Video, "frames", counted)
    estimation = estimate(Finder(), clips / "clip3.mp4", batch_size=2)
    assert not decoded
    next(estimation)
    assert decoded == [0, 1]
    for _ in estimation:
        assert sum(image() is not None for image in kept) <= 5  # two batches, and the frame in between
    assert len(decoded) == 7


@pytest.mark.parametrize(
    ("source", "options", "error", "sentence"),
    [
        (7, {}, TypeError, "source must be a path, a video, a tensor or a data set of images, got int"),
        ("nowhere", {}, ValueError, "nowhere is missing; expected a folder of images"),
        (torch.zeros(0, 3, S, S), {}, ValueError, "source must hold at least one image, got none"),
        (torch.zeros(3, S, S), {}, ValueError, r"source must have shape \(n, 3, S, S\), got \(3, 32, 32\)"),
        (torch.zeros(1, 3, S, S), {"iterations": 0}, ValueError, "iterations must be an integer of at least 1, got 0"),
        (torch.zeros(1, 3, S, S), {"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, got 0"),
        (torch.zeros(1, 3, S, S), {"workers": -1}, ValueError, "workers must be an integer of at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_named_at_once(source, options, error, sentence):
    with pytest.raises(error, match=sentence):
        estimate(Finder(), source, **options)


def test_a_path_needs_a_size(images):
    with pytest.raises(TypeError, match="image_size must be given for files, got None"):
        open_source(images)


def test_damaged_files_are_skipped_by_their_share(tmp_path):
    from tiny import draw_images

    folder = draw_images(tmp_path / "images", count=3)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="1 of 5 images and videos are unusable"):
        estimate(Finder(), folder)
    with pytest.raises(ValueError, match="2 of 5 images and videos are unusable"):
        estimate(Finder(), folder, max_bad_share=0.2)
    media = estimate(Finder(), folder, max_bad_share=0.4).media  # as train skips them
    assert [name for name, _ in media.skipped] == ["broken.mp4", "broken.png"] and "broken.png" in media.report
    assert [name for name, _ in ClipFolder(folder, 16, max_bad_share=0.4).skipped] == ["broken.png", "broken.mp4"]
    (folder / "broken.mp4").unlink()
    with pytest.raises(ValueError, match="1 of 4 images .* are unusable"):
        estimate(Finder(), folder)
    media = estimate(Finder(), folder, max_bad_share=0.5).media
    assert [name for name, _ in media.skipped] == ["broken.png"] and "broken.png" in media.report


def test_images_that_are_all_damaged_beside_a_video(tmp_path):
    from video_files import encode

    encode(tmp_path / "clip.mp4", count=3)
    (tmp_path / "broken.png").write_bytes(b"no image")
    estimation = estimate(Finder(), tmp_path, max_bad_share=0.5)
    assert [list(poses.names) for poses in estimation] == [["clip.mp4"] * 3]
    assert [name for name, _ in estimation.media.skipped] == ["broken.png"]


def test_collected_poses_have_no_images(images):
    with pytest.raises(ValueError, match="collected without their images"):
        collect(estimate(Finder(), images)).image(0)
    with pytest.raises(ValueError, match="batches must hold at least one, got none"):
        collect([])


@pytest.mark.slow
def test_tensors_need_no_extra():
    code = (
        "import sys\n"
        "for name in ('PIL', 'tqdm', 'av', 'matplotlib', 'scipy'): sys.modules[name] = None\n"
        "import torch\n"
        "from ppl_fast.evaluation import predict\n"
        "class Model(torch.nn.Module):\n"
        "    def estimate(self, images, iterations): return images[:, :2, :2, 0]\n"
        "print(predict(Model(), torch.zeros(3, 3, 8, 8), progress=False).shape)\n"
        "try: predict(Model(), torch.zeros(3, 3, 8, 8))\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == (
        "(3, 2, 2)\nprogress bars need tqdm, which is not installed: pip install 'ppl_fast[data]'\n"
    )


@pytest.mark.slow
def test_the_command_names_the_extra_before_any_work():
    pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from ppl_fast.cli import main\n"
        "main(['estimate', 'nowhere', 'nothing', '--out', 'p.csv'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.endswith(
        "ppl-fast estimate needs Pillow, which is not installed: pip install 'ppl_fast[data]'\n"
    )


def damage(path):
    """Leave head and end of a PNG as they are: only decoding tells."""
    data = bytearray(path.read_bytes())
    middle = data.index(b"IDAT") + 30
    data[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(data)


@pytest.fixture
def noisy(tmp_path):
    """A folder of 20 images of noise."""
    folder = tmp_path / "noisy"
    folder.mkdir()
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_do_not_decode_are_skipped_by_their_share(noisy, workers):
    expected = collect(estimate(Finder(), noisy))
    damage(noisy / "13.png")
    damage(noisy / "19.png")
    estimation = estimate(Finder(), noisy, batch_size=6, workers=workers)
    assert not estimation.media.skipped
    batches = list(estimation)
    poses, kept = collect(batches), [i for i in range(20) if i not in (13, 19)]
    assert poses.names == [f"{i:02d}.png" for i in kept]
    np.testing.assert_array_equal(poses.keypoints, expected.keypoints[kept])
    np.testing.assert_array_equal(
        np.asarray(batches[2].image(1)), np.asarray(Image.open(noisy / "14.png"))
    )  # behind the one that is not there
    assert [name for name, _ in estimation.media.skipped] == ["13.png", "19.png"]
    assert not any("start again" in reason for _, reason in estimation.media.skipped)
    with pytest.raises(ValueError, match=r"2 of 20 images are unusable, .* a share of 0.05 .*13.png .*19.png"):
        list(estimate(Finder(), noisy, max_bad_share=0.05))


def test_a_data_set_of_ones_own_is_never_shortened(noisy):
    damage(noisy / "13.png")
    with pytest.raises(ValueError, match="13.png could not be decoded"):
        list(estimate(Finder(), ImageFolder(noisy, S)))


def test_one_image_by_itself(noisy):
    poses = collect(estimate(Finder(), noisy / "07.png"))
    assert poses.names == ["07.png"] and poses.sizes.tolist() == [[40, 30]]
    np.testing.assert_array_equal(poses.keypoints, collect(estimate(Finder(), noisy)).keypoints[7:8])
    damage(noisy / "07.png")
    with pytest.raises(ValueError, match="07.png could not be decoded"):
        list(estimate(Finder(), noisy / "07.png"))


def test_of_a_video_that_breaks_off_the_frames_up_to_there_stay(tmp_path):
    pytest.importorskip("av", reason="videos need the video extra")
    from video_files import cut, encode

    for name in "acd":
        encode(tmp_path / f"{name}.mkv", count=10)
    cut(encode(tmp_path / "b.mkv", count=50), 0.6)
    estimation = estimate(Finder(), tmp_path, max_bad_share=0.25)
    poses = collect(estimation)
    counts = {name: poses.names.count(name) for name in dict.fromkeys(poses.names)}
    assert [counts[f"{name}.mkv"] for name in "acd"] == [10] * 3 and 10 < counts["b.mkv"] < 50
    ((name, reason),) = estimation.media.skipped
    assert name == "b.mkv" and "was cut short" in reason and "up to there are kept" in reason
