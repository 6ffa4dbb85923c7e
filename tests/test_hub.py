"""Models by a name on the hub, from a stand-in for its HTTP interface, and from the cache where it is offline."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_stand_in import hub
from model_cases import pictures, tiny

from ppl_fast.models import ExtendedPPL
from ppl_fast.models import hub as names

CODE = """
import sys, torch
from ppl_fast.models import ExtendedPPL, load_pretrained
images, out = torch.load(sys.argv[1]), {}
for name, revision in (("lab/mice", None), ("lab/mice", "v1"), ("lab/mice", "none"), ("lab/rats", None)):
    try:
        out[name, revision] = ExtendedPPL.from_pretrained(name, revision=revision).estimate(images)
    except (OSError, ValueError) as error:
        out[name, revision] = f"{type(error).__name__}: {error}"
torch.save(out, sys.argv[1])
"""


def found(tmp_path, images, **environment):
    """What a process of its own finds, by name and revision: huggingface_hub reads its settings when it is imported."""
    file = tmp_path / "images.pt"
    torch.save(images, file)
    given = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"} | environment
    done = subprocess.run([sys.executable, "-c", CODE, str(file)], env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(file)


@pytest.mark.slow
def test_names_on_the_hub_and_in_its_cache(tmp_path):
    pytest.importorskip("huggingface_hub", reason="names on the hub need the hub extra")
    models = {revision: tiny(seed) for seed, revision in enumerate(("main", "v1"))}
    for revision, model in models.items():
        model.save_pretrained(tmp_path / revision)
        (tmp_path / revision / "pytorch_model.bin").write_bytes(b"a pickle, which nobody asks for")
    images = pictures()
    with hub("lab/mice", {revision: tmp_path / revision for revision in models}) as (address, asked):
        online = found(tmp_path, images, HF_ENDPOINT=address)
    assert not [path for path in asked if "resolve" in path and path.endswith(".bin")]
    assert [path for path in asked if path.endswith("model.safetensors")]
    offline = found(tmp_path, images, HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
    gone = found(tmp_path, images, HF_ENDPOINT=address)  # nobody listens there any more
    for each in (online, offline, gone):
        torch.testing.assert_close(each["lab/mice", None], models["main"].estimate(images), rtol=0, atol=0)
        torch.testing.assert_close(each["lab/mice", "v1"], models["v1"].estimate(images), rtol=0, atol=0)
    assert online["lab/mice", "none"] == "FileNotFoundError: lab/mice on the hub has no revision none"
    assert online["lab/rats", None].startswith("FileNotFoundError: lab/rats is neither a folder nor a model on the hub")
    for each in (offline, gone):
        assert "the hub was not reached, and its cache does not have the model" in each["lab/rats", None]


def test_folders_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny().save_pretrained("lab/mice")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert ExtendedPPL.from_pretrained("lab/mice").architecture == "extended-ppl"
    assert names.local("/lab/mice") == Path("/lab/mice") and names.local("a/b/c") == Path("a/b/c")
    with pytest.raises(ImportError, match=r"is no folder, and models on the hub need huggingface_hub, .*\[hub\]"):
        ExtendedPPL.from_pretrained("lab/rats")
    with pytest.raises(ValueError, match="revision is for models on the hub, got 'v1' for lab/mice"):
        ExtendedPPL.from_pretrained("lab/mice", revision="v1")
    with pytest.raises(ValueError, match="expected one revision, got 'v1' for lab/rats@v2"):
        ExtendedPPL.from_pretrained("lab/rats@v2", revision="v1")
    assert not names.is_name("lab/mice") and names.is_name("lab/mice@v1") and not names.is_name("a/b/c")
    assert names.title(Path("hub/models--lab--mice/snapshots/1f")) == "lab/mice"
    assert names.title(Path("runs/mine")) == "mine"
