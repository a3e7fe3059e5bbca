"""Imports point one way: a module imports what stands before it in ORDER, or beside it without a circle."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import schubert_hf

ROOT = Path(schubert_hf.__file__).parent
SHIPPED = ("configuration_schubert", "modeling_schubert")
# As DESIGN.md section 3 has them; a room's name stands for all its modules.
ORDER = (
    {"configuration_schubert"},
    {"modeling_schubert", "presets"},
    {"errors"},
    {"families"},
    {"auto", "conversion", "shape"},
    {"shipping"},
    {"cost", "anatomy"},
    {"heads"},
    {"run"},
    {"latency", "data"},
    {"training"},
    {"pruning"},
    {"evaluation", "vocabulary"},
    {"encoders"},
    {"export"},
    {"hub"},
    {"bench"},
    {"report", "cli"},
    {"front"},
    {"commands"},
    {"__main__"},
    {""},  # the package itself, which imports the public names
)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in ROOT.rglob("*.py")
}


def imported(module):
    """Absolute names of everything that a module imports, at its top or in a function."""
    path = MODULES[module]
    package = ["schubert_hf", *module.split(".")] if module else ["schubert_hf"]
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{name}.{alias.name}" for alias in node.names)


def own_imports(module):
    """The modules of ours that a module imports."""
    for name in imported(module):
        head, _, rest = name.partition(".")
        if head == "schubert_hf":
            # The longest part that is a module; the rest is a name in it.
            while rest and rest not in MODULES:
                rest = rest.rpartition(".")[0]
            yield rest


def rank(module):
    places = [place for place, names in enumerate(ORDER) if module in names]
    if not places and module:
        return rank(module.rpartition(".")[0]) if "." in module else pytest.fail(f"give `{module}` its place in ORDER")
    return places[0]


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_imports_point_one_way(module):
    later = {other for other in own_imports(module) if rank(other) > rank(module)}
    assert not later, f"`{module}` imports {later}, which stand after it"


def test_there_is_no_circle():
    TopologicalSorter({module: set(own_imports(module)) for module in MODULES if module}).prepare()


def test_training_knows_nothing_of_pruning():
    for module in MODULES:
        if module.startswith("training"):
            assert not {other for other in own_imports(module) if other.startswith("pruning")}


@pytest.mark.parametrize("module", SHIPPED)
def test_shipped_files_stand_alone(module):
    """They are copied into every published repository, where nothing of ours but the two exists."""
    assert set(own_imports(module)) <= set(SHIPPED)
    foreign = {name.partition(".")[0] for name in imported(module)} - {"schubert_hf"}
    assert foreign - set(sys.stdlib_module_names) <= {"torch", "transformers", "huggingface_hub"}
    # transformers finds relative imports by regular expression, in docstrings too.
    relative = [line for line in MODULES[module].read_text(encoding="utf-8").splitlines() if "from ." in line]
    assert relative == (["from .configuration_schubert import SchuBertConfig"] if module == SHIPPED[1] else [])
