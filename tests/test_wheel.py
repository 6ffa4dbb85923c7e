"""What `make wheel` makes, installed where nothing else of this project is: the wheel, and the sdist compiled anew.

Compiling all kernels twice takes minutes, so PPL_FAST_WHEELS=1 asks for it; what is in the sdist is always looked at.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("build", reason="wheels need the dev extra")
ROOT = Path(__file__).parents[1]
LARGEST = 3e6  # bytes of a wheel without CUDA
MISSING = [tool for tool in ("make", "g++", "strip", "ldd") if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="wheels with kernels are built on Linux alone"),
]
compiled = pytest.mark.skipif(
    bool(MISSING) or not os.environ.get("PPL_FAST_WHEELS"),
    reason=f"there is no {' and no '.join(MISSING)} here" if MISSING else "PPL_FAST_WHEELS=1 asks for it",
)

SMOKE = """
import torch, ppl_fast
points, weights = torch.rand(2, 5, 2, requires_grad=True), torch.rand(10)
made = [ppl_fast.link_heatmap(points, weights, 24, 1e-2, backend=backend) for backend in ("cpp", "reference")]
torch.testing.assert_close(*made)
made[0].sum().backward()
model = ppl_fast.PPL(num_keypoints=4, image_size=32, width=0.1, reconstruction_loss="mse")
assert model.estimate(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 2) and points.grad.abs().sum() > 0
print(ppl_fast.__file__)
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_CONSTRAINT")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The folder that `make wheel` leaves, made in this environment as it is."""
    there = tmp_path_factory.mktemp("wheels")
    places = f"DIST={there / 'dist'}", f"WHEEL={there / 'build'}", f"VENV={sys.prefix}"
    run("make", "-o", f"{sys.prefix}/.ready", "wheel", *places, cwd=ROOT)
    return there / "dist"


def with_what_it_needs(name: str, found: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """An installed distribution and those it requires here, by their names."""
    if name not in found:
        found[name] = metadata.distribution(name)
        for line in found[name].requires or []:
            requirement, _, marker = line.partition(";")
            required = re.match(r"[\w.-]+", requirement)[0]
            try:
                metadata.distribution(required)
            except metadata.PackageNotFoundError:
                continue  # of an extra or of another system
            if "extra" not in marker:
                with_what_it_needs(required, found)
    return found


def environment(folder: Path, *names: str) -> Path:
    """The Python of a new environment that holds these distributions and no other.

    They are links to the files of this one, since torch is too large to be fetched or copied for a test.
    """
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    found = {}
    for name in names:
        with_what_it_needs(name, found)
    assert "ppl_fast" not in found
    for distribution in found.values():
        for top in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            source, target = Path(distribution.locate_file(top)), site / top
            if source.exists() and not target.exists():
                target.symlink_to(source)
    return folder / "bin" / "python"


def install(python: Path, package: Path, *options: str, **variables: str) -> None:
    """With pip, which finds nothing but what is there and checks that no requirement is missing."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "-q", "--no-index", *options, package, cwd=python.parent, **variables)
    run(*pip, "check", cwd=python.parent)


def works(python: Path) -> None:
    folder = python.parents[1]
    where = run(python, "-c", SMOKE, cwd=folder).strip()
    assert Path(where).is_relative_to(folder) and not Path(where).is_symlink()
    assert run(folder / "bin" / "ppl-fast", "--version", cwd=folder).startswith("ppl_fast ")
    said = run(folder / "bin" / "ppl-fast", "doctor", cwd=folder)
    assert "link_heatmap" in said and "cpp" in said


@compiled
def test_the_wheel(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    tag = re.fullmatch(r"ppl_fast-[\d.]+-cp(\d+)-cp\1-manylinux_2_\d+_\w+\.whl", wheel.name)
    assert tag and tag[1] == f"{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        libraries = [name for name in names if ".so" in name]
        assert sorted(Path(name).name.partition(".")[0] for name in libraries) == ["_C_cpu", "libppl_fast_cpu"]
        for name in libraries:
            assert b".debug_info" not in archive.read(name) and b".symtab" not in archive.read(name), name
    assert "ppl_fast/page/template/page.html" in names and "ppl_fast/kernels/link_heatmap.py" in names
    python = environment(tmp_path / "fresh", "torch", "numpy")
    install(python, wheel)
    works(python)


def test_what_the_sdist_holds(tmp_path):
    """All that a build takes, and nothing that one leaves."""
    run(sys.executable, "-m", "build", "-q", "--sdist", "--no-isolation", "--outdir", tmp_path, ".", cwd=ROOT)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("csrc", "cmake", "kernels", "ppl_fast")
    sources = {path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()}
    needed = {path.relative_to(ROOT).as_posix() for path in sources if path.suffix not in (".so", ".pyc")}
    assert needed - names == set() and {"CMakeLists.txt", "setup.py", "LICENSE"} <= names
    assert not {name for name in names if name.startswith(("tests/", "docs/")) or name.endswith(".so")}


@compiled
def test_the_sdist(dist, tmp_path):
    (sdist,) = dist.glob("*.tar.gz")
    python = environment(tmp_path / "fresh", "torch", "numpy", "setuptools", "wheel", "cmake", "ninja", "pybind11")
    install(python, sdist, "--no-build-isolation", PPL_FAST_CUDA="off")
    works(python)
