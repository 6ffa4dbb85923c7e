"""The blocks of code on the site's pages, as Markdown has them, and what the pages take for granted around them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))])
WHOLE_PAGE = re.compile(r"<!-- blocks not run: \S.*? -->")
MARK = re.compile(r"<!-- not run: \S.*? -->\n*\Z")
FENCE = re.compile(r"^([ ]*)(```+)(\w*)[^\n]*\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n)((?:    \S[^\n]*\n)+)(?=\n)")
TEXT = {"text", "yaml", "json", "csv", "console", "mermaid"}  # what nothing runs


@dataclass
class Block:
    """Code on a page: its language, its text, the line that it begins at, and whether a mark says why it is not run."""

    page: str
    line: int
    language: str
    text: str
    marked: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """The blocks of a page in order; a command that is set off by indentation alone is one of the shell."""
    text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    whole = bool(WHOLE_PAGE.search(text))
    found = []
    for match in FENCE.finditer(text):
        marked = whole or bool(MARK.search(text[: match.start()]))
        found.append((match.start(), match[3], match[4], marked))
    outside = FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    for match in INDENTED.finditer(outside):
        if match[1].strip().startswith(("ppl-fast ", "make ", "pip ")):
            found.append((match.start(), "sh", match[1], whole))
    return [Block(name, text[:at].count("\n") + 1, *rest) for at, *rest in sorted(found)]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, without variables set before it, comments and line breaks."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        given = shlex.split(line.removeprefix("$ "), comments=True)
        ends = [at for at, word in enumerate(given) if word in ("&&", "|", ";")]
        for start, end in zip([0, *(at + 1 for at in ends)], [*ends, len(given)], strict=True):
            while start < end and re.match(r"[A-Z_]+=", given[start]):
                start += 1
            if start < end:
                found.append(given[start:end])
    return found
