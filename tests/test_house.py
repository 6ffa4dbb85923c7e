"""The rules of CONTRIBUTING.md that a test can hold."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ppl_fast._library import OPERATORS

ROOT = Path(__file__).parents[1]
RULES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FOLDERS = ("ppl_fast", "kernels", "csrc", "cmake", "docs", "benchmarks", "tests", ".ci", ".github")
BUILT = {".so", ".pyc", ".png", ".safetensors"}
FILES = [
    path
    for path in (*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")))
    if path.is_file() and path.suffix not in BUILT and path.name != ".git" and not path.name.startswith(".coverage")
]
PYTHON = [path for path in FILES if path.suffix == ".py"]
PACKAGE = [path for path in PYTHON if path.relative_to(ROOT).parts[0] in ("ppl_fast", "kernels")]
CPP = [path for path in FILES if path.suffix in (".h", ".cpp", ".cu", ".cuh")]

# What the rules say, and from where on "about" is no excuse.
SIZES = {"A Python file up to about 250": (PYTHON, 300), "a C++ file 300": (CPP, 320)}
LARGEST_FUNCTION, LARGEST_PREFACE = 60, 10
# What a room takes from one below it in the table, at the first use and not sooner.
SLOTS = {("ppl_fast._library", "kernels/"), ("ppl_fast._backend", "kernels/"), ("ppl_fast.models.base", "published/")}
HOSTS = {"arxiv.org", "download.pytorch.org"}  # that the tree names


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("ppl_fast", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts).removesuffix(".__init__")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def defined(path: Path) -> list[ast.AST]:
    """The functions and classes of a file."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node for node in ast.walk(parsed(path)) if isinstance(node, kinds)]


def rooms() -> dict[str, int]:
    """What the table of rooms lists, `_*.py`, folders and files, each with the number of its row."""
    table = RULES[RULES.index("| room | what it owns |") :].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return {entry: number for number, row in enumerate(rows) for entry in row.replace("`", "").split(", ")}


def room_of(imported: str) -> str:
    """The entry of the table that a module lies in; the package itself offers the models."""
    _, inside, *_ = (*imported.split("."), "models")
    return next(
        entry
        for entry in rooms()
        if entry in (f"{inside}/", f"{inside}.py") or (entry == "_*.py" and inside.startswith("_"))
    )


MODULES = {module(path): path for path in PACKAGE}


def imports(path: Path, top: bool = False, types: bool = True) -> set[tuple[int, str]]:
    """(line, module) of all that a file imports, in functions too; with `top`, only where its own import does."""
    found, waiting = set(), list(parsed(path).body)
    while waiting:
        node = waiting.pop()
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [each if each in MODULES else node.module for each in whole]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [given.value for given in node.args[:1] if isinstance(given, ast.Constant)]
        found |= {(node.lineno, each) for each in names}
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not (top and lazy or typing and (top or not types)):
            waiting += ast.iter_child_nodes(node)
    return found


def listed(paths, refused) -> list[str]:
    """What files import at their top, as far as it is refused."""
    return [
        f"{name(path)}:{line} imports {imported}"
        for path in paths
        for line, imported in sorted(imports(path, top=True))
        if refused(imported.partition(".")[0])
    ]


@pytest.mark.parametrize("rule", SIZES)
def test_files_are_small(rule):
    files, largest = SIZES[rule]
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > largest} == {}
    assert rule in RULES


def test_functions_are_small():
    """Their docstrings aside."""
    large = {}
    for path in PYTHON:
        for node in defined(path):
            if isinstance(node, ast.ClassDef):
                continue
            first = node.body[0]
            text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            said = first.end_lineno - first.lineno + 1 if text else 0
            if (count := node.end_lineno - node.lineno + 1 - said) > LARGEST_FUNCTION:
                large[f"{name(path)}: {node.name}"] = count
    assert large == {}
    assert f"a function {LARGEST_FUNCTION}" in RULES


def test_kernels_open_with_their_design():
    prefaces = {}
    for path in PACKAGE:
        if path.parent.name == "kernels" and not path.name.startswith("_"):
            prefaces[name(path)] = ast.get_docstring(parsed(path)).splitlines()
    for path in sorted((ROOT / "csrc").glob("*_simd.cpp")) + sorted((ROOT / "csrc").glob("*.cu")):
        comment = re.match(r"(//.*\n)*", path.read_text(encoding="utf-8"))[0]
        prefaces[name(path)] = comment.splitlines()
    assert len(prefaces) > 10
    assert {path: len(lines) for path, lines in prefaces.items() if not 4 <= len(lines) <= LARGEST_PREFACE} == {}


def test_an_operator_has_one_basename_in_every_room():
    homes = {operator.home for operator in OPERATORS.values()}
    there = {name(path) for path in FILES}
    needed = {f"tests/cases/{op}.py" for op in OPERATORS}
    for home in homes:
        needed |= {f"ppl_fast/ops/{home}.py", f"kernels/{home}.py", f"csrc/{home}.h", f"csrc/{home}_cpu.cpp"}
        needed |= {f"csrc/{home}_cuda.cu", f"tests/test_{home}.py", f"benchmarks/bench_{home}.py"}
    assert needed - there == set()
    rest = {"tests/cases/": OPERATORS, "ppl_fast/ops/": homes, "kernels/": homes, "benchmarks/bench_": homes}
    for start, names in rest.items():
        files = [path.removeprefix(start) for path in there if path.startswith(start) and "/_" not in path]
        assert [file for file in files if not file.startswith(tuple(names))] == [], start
    kernels = [path.name for path in CPP if re.search(r"_(cpu|simd|cuda|arguments)\.", path.name)]
    assert [file for file in kernels if not file.startswith((*homes, "module_"))] == []


def test_rooms_import_from_those_above_them_alone():
    row, used, upward = rooms(), set(), []
    for path in PACKAGE:
        here, top = module(path), imports(path, top=True)
        for line, imported in sorted(imports(path)):
            if imported.partition(".")[0] != "ppl_fast" or row[there := room_of(imported)] <= row[room_of(here)]:
                continue
            used.add((here, there))
            if (here, there) not in SLOTS or (line, imported) in top:
                upward.append(f"{name(path)}:{line} imports {imported}")
    assert upward == []
    assert used == SLOTS


def test_files_import_one_another_in_no_circle():
    """In functions neither; what annotations alone need does not count."""
    needs = {here: {there for _, there in imports(path, types=False)} for here, path in MODULES.items()}
    needs = {
        here: {each for each in there & MODULES.keys() - {here} if (here, room_of(each)) not in SLOTS}
        for here, there in needs.items()
    }
    TopologicalSorter(needs).prepare()  # a CycleError names the files


def core() -> list[Path]:
    """The files that need torch and numpy alone."""
    row = rooms()
    free = [path for path in PACKAGE if row[room_of(module(path))] <= row["published/"]]
    return [path for path in free if room_of(module(path)) != "kernels/"]


def test_the_core_imports_torch_and_numpy_alone():
    allowed = sys.stdlib_module_names | {"torch", "numpy", "ppl_fast"}
    assert listed(core(), lambda package: package not in allowed) == []


@pytest.mark.slow
def test_the_core_is_imported_where_there_is_no_extra():
    """So are the packages that say what they lack when it is used."""
    names = [*map(module, core()), "ppl_fast.data", "ppl_fast.evaluation", "ppl_fast.inference"]
    extras = re.search(r"optional-dependencies\]\n(.*?)\ndev = ", (ROOT / "pyproject.toml").read_text(), re.DOTALL)[1]
    blocked = {*re.findall(r'"(\w+)[\[">=]', extras), "PIL", "yaml", "triton", "torchvision", "timm", "lpips"}
    code = f"import sys, importlib\nfor name in {sorted(blocked)}: sys.modules[name] = None\n"
    code += f"for name in {names}: importlib.import_module(name)\nprint('imported', len({names}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"imported {len(names)}\n", done.stderr


def test_nothing_imports_torchvision_timm_or_lpips():
    assert listed(PYTHON, lambda package: package in {"torchvision", "timm", "lpips"}) == []


@cache
def docstrings() -> list[tuple[str, str]]:
    """All that there are, each with the file and the name that it describes."""
    nodes = [(path, node) for path in PYTHON for node in (parsed(path), *defined(path))]
    texts = [(f"{name(path)}: {getattr(node, 'name', 'module')}", ast.get_docstring(node)) for path, node in nodes]
    return [(where, text) for where, text in texts if text]


# What ruff's rules for docstrings leave open.
DIALECT = {
    "a first line that begins with Return": r"\AReturns? ",
    "a section on one line": r"^ *(Args|Returns|Yields|Raises|Attributes): *\S",
    "errors or results outside of a section": r"^ *(Raises|Returns) [A-Z(]",
    "a role of reST": r":(class|func|meth|mod|attr):`",
    "two backticks": r"``",
}


@pytest.mark.parametrize("fault", DIALECT)
def test_docstrings_have_one_dialect(fault):
    faulty = [where for where, text in docstrings() if re.search(DIALECT[fault], text, re.MULTILINE)]
    assert faulty == []


def readable(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<![\w.~-])/(?:work|root|home|mnt)/\w",  # paths of one machine
        r"(?:index-url|trusted-host)[ =](?!https://download.pytorch.org)",  # package registries
        r"(?i)\b(?:issue|pull request|PR) ?#?\d|(?<![\w&])#\d{1,3}\b",  # numbers that only one tracker knows
    ],
)
def test_the_tree_speaks_of_the_project_alone(pattern):
    assert [f"{name(path)}: {found[0]}" for path in FILES if (found := re.search(pattern, readable(path)))] == []


def test_the_tree_names_few_hosts():
    hosts = {host for path in FILES for host in re.findall(r"https?://([\w.:-]+)", readable(path))}
    assert hosts == HOSTS


def anchors(page: Path) -> set[str]:
    """Of its headings, as they are made of them where Markdown is shown."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", readable(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [name(path) for path in FILES if path.suffix == ".md"])
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", readable(ROOT / page), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / file if file else ROOT / page
        assert linked.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page} links to {target}"


def test_files_that_the_rules_name_are_there():
    named = re.findall(r"`([\w/.]+/[\w.]+\.(?:py|md|toml)|[\w_]+\.(?:py|md))`", RULES)
    places = [ROOT, ROOT / "ppl_fast", ROOT / "tests"]
    assert [file for file in named if not any((place / file).exists() for place in places)] == []
    shared = {path.name for path in (ROOT / "ppl_fast").glob("_*.py")} - {"__init__.py"}
    assert shared - set(named) == set() and len(named) > 10
