"""The site that `make docs` builds: without a warning, with every page and every public name, and its figures drawn."""

import html
import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter")
MADE = ("index", "contributing", "changelog", "kernels", "benchmarks")
needs_mkdocs = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(
            importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter")
        ),
        reason="the site needs the docs extra",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    there = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(there)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return there


class TestSite:
    pytestmark = needs_mkdocs

    def test_every_page_is_there_and_in_the_navigation(self, site):
        home = (site / "index.html").read_text(encoding="utf-8")
        pages = {path.stem for path in (ROOT / "docs").glob("*.*") if path.suffix in (".md", ".ipynb")} | {*MADE}
        for page in pages - {"index"}:
            assert (site / page / "index.html").is_file(), page
            section = re.search(rf'href="{page}/"', home)
            assert section or page in navigation(site), page

    def test_every_public_name_is_in_the_reference(self, site):
        import ppl_fast

        for page, package in {"ppl_fast": ppl_fast, "data": importlib.import_module("ppl_fast.data")}.items():
            text = (site / "reference" / page / "index.html").read_text(encoding="utf-8")
            found = set(re.findall(r'id="ppl_fast[\w.]*\.(\w+)"', text))
            assert set(package.__all__) - found == set()
        text = html.unescape(re.sub("<.*?>", "", (site / "reference/ppl_fast/index.html").read_text(encoding="utf-8")))
        assert "one template shared by the batch, or (B, N, 2); (x, y), normally in [-1, 1]" in " ".join(text.split())

    def test_the_figures_and_designs_are_those_of_the_tree(self, site):
        assert (site / "files/benchmarks/results/cpu.json").read_bytes() == (
            ROOT / "benchmarks/results/cpu.json"
        ).read_bytes()
        text = html.unescape(re.sub("<.*?>", "", (site / "kernels" / "index.html").read_text(encoding="utf-8")))
        for path in [*ROOT.glob("csrc/*.cu"), *ROOT.glob("csrc/*_simd.cpp"), *ROOT.glob("kernels/[!_]*.py")]:
            assert path.name in text, path
        assert "A block of 256 threads draws 32 x 32 pixels." in text

    def test_nothing_is_asked_of_another_host(self, site):
        for page in (site / "index.html", site / "operators/index.html", site / "tour/index.html"):
            text = page.read_text(encoding="utf-8")
            assert re.findall(r'(?:<script[^>]* src|<link [^>]*stylesheet[^>]* href)="(https?://[^"]*)"', text) == [], (
                page
            )


def navigation(site: Path) -> str:
    """The names of the pages that other pages' menus list."""
    tabs = [site / name / "index.html" for name in ("footage", "library", "operators", "contributing")]
    return " ".join(re.findall(r'href="(?:\.\./)*(\w+)/?"', " ".join(path.read_text() for path in tabs)))


@pytest.mark.slow
def test_the_figures_of_the_operators_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="figures need the viz extra")
    from PIL import Image

    draw = runpy.run_path(str(ROOT / "docs" / "site" / "figures.py"))["draw"]
    drawn = draw(tmp_path)
    assert {path.name for path in drawn} == {path.name for path in (ROOT / "docs" / "operators").iterdir()}
    for path in drawn:
        assert Image.open(path).size == Image.open(ROOT / "docs" / "operators" / path.name).size
        assert len(Image.open(path).convert("RGB").getcolors(1 << 24)) > 20
