"""Imports point one way: a package may import what stands before it, never what stands after."""

import ast
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = "facerecon_torch"
# Parts of one row stand side by side and do not know each other.
_LAYERS = (
    ("errors",),
    ("checks", "files", "memory", "processes", "ranks", "version"),
    ("formats",),
    ("structures",),
    ("geometry",),
    ("model",),
    ("images",),
    ("landmarks",),
    ("fitting",),
    ("features",),
    ("regression",),
    ("metrics", "export", "registration"),
    ("report",),
    ("data",),
    ("pipeline",),
    ("batch",),
    ("doctor",),
    ("cli",),
    ("demo",),  # drives the commands as a user would
)
_ORDER = {name: level for level, row in enumerate(_LAYERS) for name in row}
_ONLY = {
    "regression": {"errors", "checks", "memory", "ranks"},  # knows no faces
    "data": {
        "errors",
        "checks",
        "files",
        "processes",
        "formats",
        "structures",
        "geometry",
        "model",
        "images",
        "landmarks",
        "fitting",
    },
    "report": {"errors", "checks", "structures", "geometry", "model", "metrics", "export", "images"},
}


def _part(module):
    """`facerecon_torch.geometry.align` -> `geometry`; None outside the package, "" for the package itself."""
    name, _, rest = module.partition(".")
    return rest.partition(".")[0] if name == _PACKAGE else None


def _imports(path):
    """Every module of the package that a file imports, also inside functions."""
    package = path.relative_to(_ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _part(alias.name) is not None)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            if _part(module) == "":
                yield from (f"{module}.{alias.name}" for alias in node.names)
            elif _part(module) is not None:
                yield module


def _broken(part, imported, exports=()):
    target = _part(imported)
    if target == part or target in exports:
        return None
    if target not in _ORDER:
        return f"{part} imports {imported}, which has no place in the layers"
    if part in _ONLY and target not in _ONLY[part]:
        return f"{part} imports {imported}, which it must not know"
    if _ORDER[target] >= _ORDER[part]:
        return f"{part} imports {imported}, which stands beside or after it"
    return None


def _files():
    return sorted((_ROOT / _PACKAGE).rglob("*.py"))


def test_every_part_of_the_package_has_a_place():
    parts = {path.relative_to(_ROOT / _PACKAGE).parts[0].removesuffix(".py") for path in _files()}
    assert parts - {"__init__", "__main__"} <= set(_ORDER)


@pytest.mark.parametrize("part", _ORDER)
def test_no_import_points_back(part):
    found = [
        f"{path.relative_to(_ROOT)}: {broken}"
        for path in _files()
        if path.relative_to(_ROOT / _PACKAGE).parts[0].removesuffix(".py") == part
        for imported in _imports(path)
        if (broken := _broken(part, imported, {"__version__"}))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("part", "imported", "allowed"),
    [
        ("fitting", "facerecon_torch.model.base", True),
        ("fitting", "facerecon_torch.pipeline", False),
        ("geometry", "facerecon_torch.model.bilinear", False),
        ("metrics", "facerecon_torch.export.obj", False),
        ("report", "facerecon_torch.metrics.ced", True),
        ("regression", "facerecon_torch.geometry.align", False),
        ("regression", "facerecon_torch.checks", True),
        ("data", "facerecon_torch.features.hog", False),
        ("cli", "facerecon_torch.commands.train.train", True),
        ("model", "facerecon_torch.unheard_of", False),
    ],
)
def test_the_walk_itself_can_fail(part, imported, allowed):
    assert (_broken(part, imported) is None) == allowed


def test_relative_and_nested_imports_are_seen(monkeypatch, tmp_path):
    monkeypatch.setattr(f"{__name__}._ROOT", tmp_path)
    path = tmp_path / _PACKAGE / "model" / "deep" / "file.py"
    path.parent.mkdir(parents=True)
    path.write_text("from ...fitting import camera\ndef f():\n    import facerecon_torch.data.splits\nimport torch\n")
    assert sorted(_imports(path)) == ["facerecon_torch.data.splits", "facerecon_torch.fitting"]
