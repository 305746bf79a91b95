import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = "lit_gnncompress"
ROOT = Path(find_spec(PACKAGE).origin).parent

FLOORS = [  # ground first; rooms of one floor do not know each other
    {"byte_progress", "files", "kept", "needed"},
    {"kernels", "plan", "data"},
    {"quantization", "embedding", "search"},
    {"storage", "models"},
    {"results"},
    {"report", "search_report"},
    {"callbacks"},
    {"compare"},
    {"cli"},
    {"command"},
    {"__init__", "__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
KNOW_LIGHTNING = {"data", "models"} | {
    room for room, floor in FLOOR_OF.items() if floor >= FLOOR_OF["callbacks"]
}

MODULES = {
    ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}


def room_of(module):
    """The folder, or the file, of the package that a module lives in."""
    return (*module.split("."), "__init__")[1]


def imports_of(module, source, is_package=False, deferred=True):
    """Absolute names of the modules that a source imports; with ``deferred``, in functions, too."""
    found, nodes = [], [ast.parse(source)]
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not deferred:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not deferred:
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            parts = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*parts, *filter(None, [node.module])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            found += [name if name in MODULES else base for name in inner]
    return found


IMPORTS = {
    module: imports_of(module, path.read_text(encoding="utf-8"), path.stem == "__init__")
    for module, path in MODULES.items()
}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_floor(module):
    assert room_of(module) in FLOOR_OF, "a new room: give it a floor in CONTRIBUTING.md and here"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    room = room_of(module)
    for imported in IMPORTS[module]:
        below = room_of(imported)
        if imported.split(".")[0] == PACKAGE and below not in (room, "__init__"):
            assert FLOOR_OF[below] < FLOOR_OF[room], f"{module} imports {imported}"


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) != "__init__"])
def test_no_module_imports_the_public_names(module):
    # A package imports what it makes public, so that its own parts would run in circles.
    assert PACKAGE not in IMPORTS[module]


@pytest.mark.parametrize("module", MODULES)
def test_lightning_stays_upstairs(module):
    known = {imported.split(".")[0] for imported in IMPORTS[module]}
    if room_of(module) not in KNOW_LIGHTNING:
        assert not known & {"lightning", "pytorch_lightning", "lightning_fabric"}


def test_no_imports_run_in_circles():
    at_import = {
        module: {
            name
            for name in imports_of(module, path.read_text("utf-8"), path.stem == "__init__", False)
            if name in MODULES and name != module
        }
        for module, path in MODULES.items()
    }
    while leaves := {module for module, names in at_import.items() if not names}:
        at_import = {m: names - leaves for m, names in at_import.items() if m not in leaves}
    assert not at_import, f"a circle among {sorted(at_import)}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b, c", ["a.b", "c"]),
        ("from . import x", [f"{PACKAGE}.room"]),
        ("from .x import y", [f"{PACKAGE}.room.x"]),
        ("from ..plan import BitPlan", [f"{PACKAGE}.plan"]),
        (f"from {PACKAGE} import plan, nothing", [f"{PACKAGE}.plan", PACKAGE]),
        ("def f():\n    import a", ["a"]),
    ],
)
def test_imports_are_found_in_all_their_forms(source, expected):
    assert imports_of(f"{PACKAGE}.room.module", source) == expected
