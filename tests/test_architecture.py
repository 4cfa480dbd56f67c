"""The architecture, held by tests: layers, no cycles, sizes, nothing dangerous."""

import ast
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
    ("store", "zero_shot", "stats"),
    ("tasks", "cards", "data", "backends", "metrics"),
    ("stages", "listing", "printing", "progress"),
    ("cli", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MAX_LINES, MAX_FUNCTION = 400, 50


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Return (module, at the top of the file?) of every import of the project's own code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in tree.body:  # `if TYPE_CHECKING:` is not run
        if isinstance(node, ast.If):
            top -= set(map(id, ast.walk(node)))
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found += [
            (name, id(node) in top)
            for name in names
            if name.partition(".")[0] in ("mpm_eval", "training")
        ]
    return found


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


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_runs_code_from_data(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {
                "pickle",
                "dill",
                "marshal",
                "shelve",
            }
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "yaml.load", "torch.save"), called
            if called == "torch.load":
                assert any(
                    k.arg == "weights_only" and ast.unparse(k.value) == "True"
                    for k in node.keywords
                )


def test_every_module_says_what_it_is() -> None:
    for path in MODULES:
        if path.stat().st_size:
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name_of(path)
