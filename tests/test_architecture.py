"""The architecture, held by tests: layers, no cycles, sizes, nothing dangerous."""

import ast
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted(
    path for package in ("mpm_eval", "training") for path in (REPOSITORY / package).rglob("*.py")
)
# Lower layers first; a module imports only from lower layers or its own package.
LAYERS = (
    ("errors",),
    ("strict", "schema", "languages", "resources", "normalise"),
    ("append_only", "store", "endpoint", "items", "zero_shot", "stats"),
    ("tasks", "cards", "data", "backends", "metrics", "probes", "judging", "images"),
    ("stages", "results", "listing", "printing", "progress"),
    ("commands",),
    ("cli", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MAX_LINES, MAX_FUNCTION = 400, 50


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Return (module, at the top of the file?) of every import of the project's own code."""
    return imports_in(path.read_text(encoding="utf-8"))


def imports_in(source: str) -> list[tuple[str, bool]]:
    tree = ast.parse(source)
    lazy: set[int] = set()
    for node in ast.walk(tree):
        # What is in a function is imported late, what is `if TYPE_CHECKING:` never.
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if checking or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            lazy |= set(map(id, ast.walk(node)))
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports from the root of the package"
            assert node.module is not None
            # `from mpm_eval import strict` imports the module strict, too.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in inner if name in NAMES] or [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found += [
            (name, id(node) not in lazy)
            for name in names
            if name.partition(".")[0] in ("mpm_eval", "training")
        ]
    return found


NAMES = {name_of(path) for path in MODULES}


def test_the_reader_of_imports_sees_every_way_to_write_one() -> None:
    source = """
import mpm_eval.store
from mpm_eval import strict, __version__
from mpm_eval.data import READERS
try:
    import training.interface
except ImportError:
    pass
if TYPE_CHECKING:
    from training.interface import ChatModel
def late():
    from mpm_eval.cli import main
"""
    assert sorted(imports_in(source)) == [
        ("mpm_eval.cli", False),
        ("mpm_eval.data", True),
        ("mpm_eval.store", True),
        ("mpm_eval.strict", True),
        ("training.interface", False),
        ("training.interface", True),
    ]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    own = name_of(path).split(".")
    for module, at_top in imports_of(path):
        parts = module.split(".")
        if own[0] == "mpm_eval" and parts[0] == "training":
            assert parts == ["training", "interface"] and not at_top, f"{module} in {name_of(path)}"
        if (
            own[0] == parts[0] == "mpm_eval"
            and len(parts) > 1
            and len(own) > 1
            and parts[1] != own[1]
        ):
            assert RANK[parts[1]] <= RANK[own[1]], f"{name_of(path)} imports {module}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        name_of(path): {module for module, at_top in imports_of(path) if at_top} for path in MODULES
    }

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for target in graph.get(start, ()):
            if target == goal or (target not in seen and reaches(target, goal, seen | {target})):
                return True
        return False

    for name in graph:
        assert not reaches(name, name, set()), name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{node.name}: {length} lines"


def dangers_in(source: str) -> list[str]:
    """Return what in a module's text could run code that came with data."""
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in banned]
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if (node.module or "").split(".")[0] in banned:
                found.append(str(node.module))
            elif node.module in ("torch", "yaml") and names & {"load", "save"}:
                found.append(f"from {node.module} import load")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe = {k.arg: ast.unparse(k.value) for k in node.keywords}.get(
                "weights_only"
            ) == "True"
            if called in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "torch.save"):
                found.append(called)
            elif called == "torch.load" and not safe:
                found.append("torch.load without weights_only=True")
            elif called in ("np.load", "numpy.load") and any(
                k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords
            ):
                found.append("numpy.load with allow_pickle")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as d",
        "from torch import load",
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_a_dangerous_line_is_found(line: str) -> None:
    assert len(dangers_in(line)) == 1


def test_harmless_lines_are_let_through() -> None:
    lines = "torch.load(path, weights_only=True)\nyaml.safe_load(text)\nmodel.eval()\nnp.load(path)"
    assert dangers_in(lines) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_runs_code_from_data(path: Path) -> None:
    assert dangers_in(path.read_text(encoding="utf-8")) == []


def test_every_module_says_what_it_is() -> None:
    for path in MODULES:
        if path.stat().st_size:
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name_of(path)
