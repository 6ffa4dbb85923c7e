"""Training on clips: the appearance comes from another frame of the same clip."""

import pytest

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

import torch
from tiny import draw_images, fails, run_steps

from ppl_fast import PPL
from ppl_fast.data import ImageFolder
from ppl_fast.training import load_model


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips") / "clips"
    root.mkdir()
    for number in range(2):
        draw_images(root / f"clip{number}", 4, seed=number)
    return root


def test_references_are_other_frames_of_the_clip(clips, tmp_path, monkeypatch):
    frames = ImageFolder(clips, 32)
    known = {tuple(frames[i].flatten()[:2000].tolist()): frames.paths[i] for i in range(len(frames))}
    seen, forward = [], PPL.forward

    def spying(self, images, reference=None):
        seen.append((images.clone(), reference.clone()))
        return forward(self, images, reference)

    monkeypatch.setattr(PPL, "forward", spying)
    run_steps(clips, tmp_path / "run", 3, reference="video", flip=False)
    assert len(seen) == 3
    for image, other in (pair for images, references in seen for pair in zip(images, references, strict=True)):
        names = [known[tuple(frame.flatten()[:2000].tolist())] for frame in (image, other)]
        assert names[0] != names[1] and names[0].split("/")[0] == names[1].split("/")[0]


def test_a_resumed_run_equals_the_straight_one(clips, tmp_path):
    run_steps(clips, tmp_path / "straight", 4, reference="video")
    run_steps(clips, tmp_path / "resumed", 2, reference="video")
    run_steps(clips, tmp_path / "resumed", 4, resume=True, reference="video")
    straight, resumed = (load_model(tmp_path / name).state_dict() for name in ("straight", "resumed"))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_images_alone_are_no_clips(images, tmp_path, capsys):
    arguments = ("--reference", "audio", "--reconstruction-loss", "mse")
    assert "one of 'image', 'video', got audio" in fails(capsys, "train", images, "--out", tmp_path / "run", *arguments)
