"""The version is written once, in ppl_fast/__init__.py; what else names it says the same."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import ppl_fast

ROOT = Path(__file__).parents[1]


def test_what_setuptools_reads():
    """As it reads the attribute from the text: the package need not be importable, nor torch be there, to be built."""
    code = """
import sys
sys.modules["torch"] = None
from setuptools.config.pyprojecttoml import read_configuration
print(read_configuration("pyproject.toml", ignore_option_errors=False)["project"]["version"])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == ppl_fast.__version__, done.stderr


def test_what_the_citation_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ppl_fast.__version__
    assert citation["license"] == "MIT" and citation["cff-version"] == "1.2.0"
    assert citation["preferred-citation"]["url"] in (ROOT / "pyproject.toml").read_text()


def test_the_installed_version():
    try:
        installed = metadata.version("ppl_fast")
    except metadata.PackageNotFoundError:
        pytest.skip("ppl_fast runs from its source tree here; it is not installed")
    assert installed == ppl_fast.__version__


def test_the_changelog_has_the_version():
    assert re.search(rf"^## {re.escape(ppl_fast.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
