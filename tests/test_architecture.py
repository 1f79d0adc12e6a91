"""What the folders say of the code must be so: data flows one way, and no part is too large to read."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "tfq"
# A part may import those before it, and none behind it.
_PARTS = """
    errors execution numerics precision grid operations targets options recipe models data quantized_model spec
    calibration simulate export verify evaluation reconstruction allocation report pipeline
"""
ORDER = _PARTS.split()


def part_of(module):
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


def imports(tree):
    """Modules of tfq that a module imports when it runs, wherever the import stands."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tfq":
            yield node.module
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tfq")
        yield from imports(node)


def test_every_part_has_its_place():
    found = {path.stem if path.is_file() else path.name for path in ROOT.iterdir() if not path.name.startswith("__")}
    assert found - {"BUILD", "py", "library"} == set(ORDER)


@pytest.mark.parametrize("part", ORDER)
def test_nothing_is_imported_from_downstream(part):
    place = ROOT / part
    files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    for file in files:
        for module in imports(ast.parse(file.read_text(encoding="utf-8"))):
            other = part_of(module)
            assert not other or other == part or ORDER.index(other) < ORDER.index(part), f"{file} imports {module}"
