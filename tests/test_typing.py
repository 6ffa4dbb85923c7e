"""A user's type checker finds our types in the package as it is installed, and says what is wrong with a call."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A comment is what mypy must say of the line; of a line without one it must say nothing.
USER = """\
import torch

import ppl_fast
from ppl_fast.data import ImageFolder
from ppl_fast.inference import collect, estimate, write
from ppl_fast.training import TrainConfig, train

model = ppl_fast.PPL(num_keypoints=16, image_size=128)
images = torch.zeros(2, 3, 128, 128)
model(images).loss.backward()
reveal_type(model.estimate(images, iterations=4))  # Revealed type is "torch._tensor.Tensor"
reveal_type(model.prior())  # fallback=ppl_fast.models.output.Prior]"
reveal_type(ppl_fast.PPL.from_pretrained("saved"))  # Revealed type is "ppl_fast.models.ppl.PPL"
reveal_type(train({}, TrainConfig(), "images", "run"))  # Revealed type is "ppl_fast.models.base.KeypointModel"
model.estimate(images, iterations="4")  # Argument "iterations" to "estimate" of "PPL" has incompatible type "str"

with ppl_fast.use_backend("triton"):
    pass
ppl_fast.use_backend("cuda")  # expected "Literal['auto', 'cpp', 'triton', 'reference']"

points, weights = torch.rand(2, 16, 2), torch.rand(120)
heatmap = ppl_fast.link_heatmap(points, weights, (64, 64), thickness=1e-3, backend="reference")
reveal_type(heatmap)  # Revealed type is "torch._tensor.Tensor"
ppl_fast.link_heatmap(points, weights, "64", thickness=1e-3)  # Argument 3 to "link_heatmap" has incompatible type "str"
ppl_fast.link_heatmap(points, weights, 64)  # Missing positional argument "thickness"
values, indices = ppl_fast.memory_attention(points, points)  # Too many values to unpack (2 expected, 3 provided)

for poses in estimate(model, "footage", batch_size=8):
    reveal_type(poses.keypoints)  # Revealed type is "numpy.ndarray[
write(estimate(model, "walk.mp4"), csv="poses.csv")
collect(estimate(model, ImageFolder("photos", 128)))
estimate(model, images)
estimate(model, 3)  # Argument 2 to "estimate" has incompatible type "int"
"""


def expected() -> dict[int, str]:
    lines = enumerate(USER.splitlines(), start=1)
    return {number: line.split("  # ")[1] for number, line in lines if "  # " in line}


@pytest.mark.slow  # mypy reads torch's and numpy's types; build/mypy keeps them for the next time
def test_a_users_calls_are_checked(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    installed = tmp_path / "installed"
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(installed)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (tmp_path / "user.py").write_text(USER)

    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / "build" / "mypy"), "user.py"]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    said: dict[int, str] = {}
    for number, text in re.findall(r"^user\.py:(\d+): \w+: (.*)$", done.stdout, re.MULTILINE):
        said[int(number)] = f"{said.get(int(number), '')} {text}"
    assert said.keys() == expected().keys(), done.stdout + done.stderr
    for number, text in expected().items():
        assert text in said[number], number


@pytest.mark.parametrize("name", ["data", "training"])
def test_a_type_checker_finds_the_names_that_are_imported_on_first_use(name):
    package = importlib.import_module(f"ppl_fast.{name}")
    homes = getattr(package, "_HOMES", {"train": "trainer"})
    for_checkers = Path(package.__file__).read_text(encoding="utf-8").partition("if TYPE_CHECKING:")[2]
    imports = re.findall(rf"from ppl_fast\.{name}\.(\w+) import (.+)", for_checkers)
    assert {each: module for module, names in imports for each in names.split(", ")} == homes
    assert homes.keys() <= set(package.__all__)
