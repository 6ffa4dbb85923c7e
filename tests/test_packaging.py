"""What an installed package must hold, which an editable install does not show to be missing."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_part_of_the_page_is_packaged():
    from ppl_fast.page.document import SCRIPTS

    assert '"ppl_fast.page" = ["template/*"]' in (ROOT / "pyproject.toml").read_text()
    there = {path.name for path in (ROOT / "ppl_fast/page/template").iterdir()}
    assert there == {*SCRIPTS, "page.html", "page.css"}


def test_every_package_is_listed():
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    folders = {path.parent for path in (ROOT / "ppl_fast").rglob("*.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(re.findall(r'"(.+?)"', listed[1])) == packages | {"ppl_fast.kernels"}
