"""What `make docs` makes of the tree beside the pages of docs/.

The README and the like as pages, the reference of the public names, the kernels' design notes, the benchmarks' figures,
and each file of the tree that a page links to.

No text is written twice: pages are taken as they are, with links that lead out of docs/ turned to what stands here for
the file. A page that `ORDER` does not name comes last in its section, and one that is not there is left out.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
ORDER = {
    "Start": ["index", "own_images", "tour", "demo", "faq"],
    "Guides": ["footage", "video", "datasets", "inference", "formats", "naming", "confidence", "page", "export", "hub"],
    "Library": ["library", "published", "scaling", "reliability"],
    "Kernels": ["operators", "kernels", "benchmarks", "performance", "adding_an_operator"],
    "Reference": [],
    "Project": ["probes", "contributing", "changelog"],
}
REST = "Guides"  # for pages that no section names
PACKAGES = [
    "", "models", "options", "data", "inference", "evaluation", "naming", "training", "visualization", "published",
    "page", "export",
]  # fmt: skip
LANGUAGES = {".h": "cpp", ".cuh": "cpp", ".cu": "cpp", ".cpp": "cpp", ".py": "python", ".sh": "sh"}
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^(```+|~~~+).*?^\1 *$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config) -> Files:
    """Add the pages that are made, and order all of them."""
    made = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in PAGES.items()}
    made |= {"kernels.md": kernels(), "benchmarks.md": benchmarks(), **reference()}
    sources = {page: source for source, page in PAGES.items()}
    pages = {
        file.src_uri: (ROOT / "docs" / file.src_uri).read_text(encoding="utf-8") for file in files if is_page(file)
    }
    linked: set[str] = set()
    for uri, text in (pages | made).items():
        text = rewritten(text, sources.get(uri, f"docs/{uri}"), uri, linked)
        if file := files.get_file_from_path(uri):
            files.remove(file)
        files.append(File.generated(config, uri, content=text))
    for path in sorted(linked):
        if is_data(path):
            files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
        else:
            files.append(File.generated(config, f"files/{path}.md", content=shown(path)))
    config.nav = navigation([file.src_uri for file in files])
    return files


def is_page(file: File) -> bool:
    """Whether it is Markdown of docs/."""
    return file.inclusion.is_included() and file.src_uri.endswith(".md")


def navigation(uris: list[str]) -> list[dict]:
    """The pages by section; a notebook counts as a page."""
    names = {uri.rpartition(".")[0]: uri for uri in uris if "/" not in uri and uri.endswith((".md", ".ipynb"))}
    named = {name for pages in ORDER.values() for name in pages}
    sections = {section: [names[name] for name in pages if name in names] for section, pages in ORDER.items()}
    sections[REST] += [uri for name, uri in sorted(names.items()) if name not in named]
    sections["Reference"] = [f"reference/{package or 'ppl_fast'}.md" for package in PACKAGES]
    return [{section: pages} for section, pages in sections.items()]


def rewritten(text: str, source: str, uri: str, linked: set[str]) -> str:
    """Markdown of the file `source` for the page `uri`; files of the tree that it links to are added to `linked`."""

    def target(match: re.Match[str]) -> str:
        path = os.path.normpath(os.path.join(os.path.dirname(source), match[1]))
        if path in PAGES:
            there = PAGES[path]
        elif path.startswith("docs/") and not path.endswith(".cpp"):
            there = path.removeprefix("docs/")
        else:
            linked.add(path)
            there = f"files/{path}" if is_data(path) else f"files/{path}.md"
        return os.path.relpath(there, os.path.dirname(uri) or ".") + (match[2] or "")

    parts, at = [], 0
    for fence in FENCE.finditer(text):  # what stands in a block of code is no link
        parts += [LINK.sub(target, text[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, LINK.sub(target, text[at:])])


def is_data(path: str) -> bool:
    """Whether a file is given as it is, rather than shown on a page."""
    return path.endswith((".json", ".png", ".jpg"))


def shown(path: str) -> str:
    """A file of the tree as a page."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"# `{path}`\n\n~~~~~~{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n~~~~~~\n"


def reference() -> dict[str, str]:
    """A page for each public package, with the names that it offers; each name stands where it is first offered."""
    pages, seen = {}, set()
    for package in PACKAGES:
        name = f"ppl_fast.{package}".rstrip(".")
        module = importlib.import_module(name)
        offered = [each for each in sorted(module.__all__) if each not in seen and getattr(module, each).__doc__]
        seen |= set(offered)
        parts = [f"# `{name}`", module.__doc__ or "", *(f"::: {name}.{each}" for each in offered)]
        pages[f"reference/{package or 'ppl_fast'}.md"] = "\n\n".join(parts) + "\n"
    return pages


def kernels() -> str:
    """How each kernel is designed, in the words that it opens with."""
    headers = [path for path in sorted((ROOT / "csrc").glob("*.h")) if of_op(path)]
    rooms = {"CPU": "csrc/*_simd.cpp", "CUDA": "csrc/*.cu", "Triton": "kernels/[!_]*.py"}
    parts = [
        "# Design of the kernels",
        "Each kernel opens with what one thread, block or program computes, what it keeps close, its cost, and the "
        "alternative not taken; these are their words. The maths that they share stands once, in `csrc/*.h`: "
        + ", ".join(f"[{path.stem}](../csrc/{path.name})" for path in headers)
        + ". What the operators compute: [operators.md](operators.md).",
    ]
    for room, pattern in rooms.items():
        parts.append(f"## {room}")
        for path in sorted(ROOT.glob(pattern)):
            parts.append(f"### [{path.name}](../{path.relative_to(ROOT).as_posix()})\n\n{escaped(preface(path))}")
    return "\n\n".join(parts) + "\n"


def of_op(path: Path) -> bool:
    """Whether a header is that of an operator."""
    return (ROOT / "ppl_fast" / "ops" / f"{path.stem}.py").exists()


def preface(path: Path) -> str:
    """What a kernel's file opens with."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    lines = re.match(r"(//.*\n)*", text)
    return "\n".join(line.removeprefix("//").removeprefix(" ") for line in lines[0].splitlines())


def escaped(text: str) -> str:
    """Plain text as Markdown that shows it."""
    return re.sub(r"([\\`*_<\[\]])", r"\\\1", text)


def benchmarks() -> str:
    """Every result file, as a table and as it is."""
    parts = [
        "# Benchmarks",
        "`make bench` measures, after checking each implementation for correctness; each table below is a file of "
        "`benchmarks/results/`, with the machine that it was measured on. Times are medians in milliseconds, memory is "
        "the peak above the inputs. What they mean is said in the [README](../README.md#the-operators) and in "
        "[operators.md](operators.md#what-it-saves).",
    ]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"## {path.stem}\n\n[All of it](../{path.relative_to(ROOT).as_posix()})")
        if isinstance(result, dict) and isinstance(result.get("rows"), list) and result["rows"]:
            parts += [
                ", ".join(f"{key} {value}" for key, value in result.get("machine", {}).items()),
                table(result["rows"]),
            ]
    return "\n\n".join(parts) + "\n"


def table(rows: list[dict]) -> str:
    """Records as a table of Markdown."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numbers = [all(isinstance(row.get(key, 0), int | float) for row in rows) for key in columns]
    lines = [columns, ["---:" if number else "---" for number in numbers]]
    lines += [[str(row.get(key, "")) for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
