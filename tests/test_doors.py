"""Which module may import which, read from the source: the arrows of docs/extending.md."""

import ast
from pathlib import Path

import pytest

import msth_taichi

PACKAGE = Path(msth_taichi.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
SCALARS = {"errors", "lenses", "grids", "config", "thresholds", "files", "machine", "pages"}

# what each room may import of the package, besides itself and SCALARS
DOORS = {
    "kernels": set(),
    "reference": set(),
    "ops": {"kernels", "reference"},
    "scene": {"kernels", "ops"},
    "checking": {"reference", "scene"},
    "sampling": {"kernels", "ops", "scene"},
    "model": {"kernels", "ops", "scene"},
    "evaluation": {"kernels", "ops", "scene", "sampling", "model", "training", "rendering", "exporting"},
    "tracking": {"scene", "model", "training", "evaluation", "rendering", "checking"},
    "rendering": {"kernels", "ops", "scene", "sampling", "model", "training"},
    "training": {"kernels", "ops", "scene", "sampling", "model", "evaluation", "rendering", "exporting", "tracking"},
    "exporting": {"scene", "model", "training", "evaluation"},
    "viewer": {"scene", "model", "training", "rendering", "evaluation"},
}


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(path: Path) -> set[str]:
    """Rooms and single modules of the package that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("msth_taichi.")}


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("room", DOORS)
def test_rooms_import_through_their_doors_only(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files, f"no such room: {room}"
    for path in files:
        foreign = rooms(path) - {room, "__version__"} - SCALARS - DOORS[room]
        assert not foreign, f"{relative(path)} imports {sorted(foreign)}"


def test_every_room_has_doors():
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in MODULES if path.parent != PACKAGE}
    assert folders == set(DOORS)


def test_scalars_import_scalars_only():
    for name in SCALARS:
        path = PACKAGE / f"{name}.py"
        assert rooms(path) <= SCALARS, name
        assert not {"torch", "taichi"} & {module.split(".")[0] for module in imports(path)}, name


def test_nothing_imports_the_command_line():
    for path in MODULES:
        if relative(path) != "__main__.py":
            assert "cli" not in rooms(path), relative(path)


def test_only_kernels_import_taichi():
    for path in MODULES:
        if "taichi" in {name.split(".")[0] for name in imports(path)}:
            assert path.parent.name == "kernels", relative(path)


def test_one_place_starts_taichi():
    def starts(path: Path) -> bool:
        return any(
            isinstance(node, ast.Attribute)
            and node.attr == "init"
            and getattr(node.value, "id", "") in ("ti", "taichi")
            for node in ast.walk(ast.parse(path.read_text()))
        )

    assert [relative(path) for path in MODULES if starts(path)] == ["kernels/runtime.py"]


def test_kernel_files_do_not_postpone_annotations():
    """Taichi reads the annotations of kernels and fails on strings."""
    for path in (PACKAGE / "kernels").glob("*.py"):
        assert "__future__.annotations" not in imports(path), relative(path)


def test_one_operator_has_one_name_everywhere():
    operators = {path.stem for path in (PACKAGE / "ops").glob("*.py")} - {"__init__", "checks", "table_sums"}
    assert len(operators) >= 10
    tests = Path(__file__).parent / "ops"
    for name in operators:
        assert (PACKAGE / "kernels" / f"{name}.py").is_file(), f"kernels/{name}.py"
        assert (PACKAGE / "reference" / f"{name}.py").is_file(), f"reference/{name}.py"
        assert (tests / f"test_{name}.py").is_file(), f"tests/ops/test_{name}.py"
