"""Imports only ever point down, in the order of the layers below."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import rfmdist

PACKAGE = Path(rfmdist.__file__).parent
LAYERS = (
    {"cli", "__main__"},
    {"report"},
    {"baselines", "deep", "sensing", "sparse_regression", "nfa"},
    {
        "lin_rfm",
        "estimator",
        "choosing",
        "fitting",
        "preparing",
        "selection",
        "parameters",
        "planning",
        "progress",
        "recovering",
        "recovery",
        "projection",
        "certificate",
        "spectrum",
        "cores",
        "iterating",
        "measurements",
        "objective",
    },
    {"completion", "serving", "saving", "asking", "folding", "exporting"},
    {"engine"},
    {"features"},
    {"kernels"},
    {"observations"},
    {"errors", "machine", "checks", "compiling"},
)
"""From the top; a module may import its own layer and those below."""
FOREIGN = {
    "distributed": {"engine", "cli"},
    "numba": {"kernels", "compiling"},
    "cupy": {"kernels"},
    "jax": {"baselines"},
    "duckdb": {"observations"},
}
"""Libraries that only these parts may know."""
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(module: str) -> str:
    """Give the part of the package that a dotted module name belongs to."""
    return [*module.split("."), "__init__"][1]


def imported(path: Path) -> list[str]:
    """Give the dotted names a file imports at run time, also inside functions; not those for type checks alone."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: list[str] = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            module = node.module or ""
            names += [f"rfmdist.{a.name}" for a in node.names] if module == "rfmdist" else [module]
    return names


def test_cited_sections_exist() -> None:
    """Every section of DESIGN.md that the code cites by name is there."""
    headings = set(re.findall(r"^#+ (.+)$", (PACKAGE / "DESIGN.md").read_text(), re.MULTILINE))
    cited = []
    for path in [*MODULES, *Path(__file__).parent.rglob("*.py"), *(PACKAGE.parent / "scripts").rglob("*.py")]:
        for names in re.findall(r'DESIGN\.md,\s+((?:"[^"]+"(?: and )?)+)', path.read_text()):
            cited += [(path.name, " ".join(name.split())) for name in re.findall(r'"([^"]+)"', names)]
    assert len(cited) > 15
    assert not [(file, name) for file, name in cited if name not in headings]


def level(part: str) -> int:
    """Give the place of a part from the top; a part that no layer names is a failure."""
    found = [i for i, layer in enumerate(LAYERS) if part in layer]
    assert found, f"{part} belongs to no layer"
    return found[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A module imports its own layer or a lower one, and only the libraries its part may know."""
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported(path):
        if name.startswith("rfmdist.") and part_of(name) != "__version__":
            assert level(part_of(name)) >= level(part), f"{path.name} imports {name} from above"
        owners = FOREIGN.get(name.split(".")[0])
        assert owners is None or part in owners, f"{path.name} imports {name}"


def test_all_modules_are_looked_at() -> None:
    """The walk finds the package's files, so that the test above cannot pass on nothing."""
    assert {"lin_rfm.py", "fitting.py", "factored.py", "cpu.py", "store.py"} <= {path.name for path in MODULES}
