"""Imports point one way: a package imports what stands before it in LAYERS, and no circle of files exists."""

import ast
from collections import Counter
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = "facerecon_torch"
# Lowest first. Every file and folder at the top of the package stands here.
LAYERS = (
    "errors",
    "checks",
    "files",
    "formats",
    "structures",
    "runtime",
    "geometry",
    "model",
    "images",
    "landmarks",
    "fitting",
    "features",
    "regression",
    "cascade",
    "tracking",
    "registration",
    "data",
    "synthetic",
    "metrics",
    "report",
    "export",
    "external",
    "evaluation",
    "config",
    "commands",
)
# Knows no faces.
_ONLY = {"regression": {"errors", "checks", "files", "runtime"}}
# Two houses: inside their package, files of one import `surface_parts` and files of the same house only.
_HOUSES = ("registration.scan", "registration.topology")
_SHARED_BY_HOUSES = "registration.surface_parts"
_FILES_PER_FOLDER = 16


def _modules(root):
    """Dotted name inside the package -> file."""
    package = root / _PACKAGE
    names = {
        path.relative_to(package).with_suffix("").as_posix().replace("/", "."): path for path in package.rglob("*.py")
    }
    return {name.removesuffix("__init__").rstrip("."): path for name, path in names.items()}


def _imports(name, path, modules):
    """Modules of the package that a file imports, also inside functions."""
    is_folder = path.name == "__init__.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = f"{_PACKAGE}.{name}".split(".")
            above = above[: len(above) + is_folder - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            targets = [
                f"{module}.{alias.name}" if f"{module}.{alias.name}".removeprefix(f"{_PACKAGE}.") in modules else module
                for alias in node.names
            ]
        else:
            continue
        yield from (t.removeprefix(_PACKAGE).lstrip(".") for t in targets if t.split(".")[0] == _PACKAGE)


def _layer(name):
    return name.split(".")[0]


def _broken(importer, imported):
    """The reason why `importer` may not import `imported`; None where it may."""
    low, high = _layer(imported), _layer(importer)
    house = next((house for house in _HOUSES if importer.startswith(f"{house}.")), None)
    if house and low == high and imported != _SHARED_BY_HOUSES and not imported.startswith(f"{house}."):
        return f"{importer} imports {imported}; files of {house} may import {_SHARED_BY_HOUSES} and each other"
    if importer == _SHARED_BY_HOUSES and imported.startswith(_HOUSES):
        return f"{importer} imports {imported}, which stands after it"
    if low == high or not imported:  # the package itself: its version
        return None
    if low not in LAYERS:
        return f"{importer} imports {imported}, which has no place in LAYERS"
    if high in _ONLY and low not in _ONLY[high]:
        return f"{importer} imports {imported}; {high} may import {', '.join(sorted(_ONLY[high]))}"
    if LAYERS.index(low) > LAYERS.index(high):
        return f"{importer} imports {imported}, which stands after it"
    return None


def _circles(graph):
    """Groups of modules that import each other, by repeated removal of modules that import or are imported by none."""
    left = {name: set(targets) & set(graph) - {name} for name, targets in graph.items()}
    while True:
        imported = set().union(*left.values()) if left else set()
        loose = [name for name, targets in left.items() if not targets or name not in imported]
        if not loose:
            return sorted(left)
        for name in loose:
            del left[name]
        left = {name: targets - set(loose) for name, targets in left.items()}


@pytest.fixture(scope="module")
def graph():
    modules = _modules(_ROOT)
    return {name: set(_imports(name, path, modules)) for name, path in modules.items() if name not in ("", "__main__")}


def test_every_file_and_folder_has_a_place(graph):
    assert {_layer(name) for name in graph} == set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_no_import_points_back(graph, layer):
    reasons = [_broken(name, t) for name, targets in graph.items() if _layer(name) == layer for t in targets]
    assert not any(reasons), "\n".join(filter(None, reasons))


def test_no_circle_of_files(graph):
    assert _circles(graph) == []


def test_no_folder_is_a_bag():
    sizes = Counter(path.parent for path in (_ROOT / _PACKAGE).rglob("*.py"))
    assert {folder.name: size for folder, size in sizes.items() if size > _FILES_PER_FOLDER} == {}


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("fitting.camera", "model.base", True),
        ("fitting.camera", "commands.train", False),
        ("geometry.align", "model.bilinear", False),
        ("metrics.scan", "export.obj", False),
        ("report.tables", "metrics.landmarks", True),
        ("regression.ridge", "geometry.align", False),
        ("regression.ridge", "checks", True),
        ("registration.scan.icp", "registration.scan.surface", True),
        ("registration.scan.icp", "registration.surface_parts", True),
        ("registration.scan.icp", "registration.topology.fit", False),
        ("registration.topology.fit", "registration.scan.icp", False),
        ("registration.surface_parts", "registration.scan.icp", False),
        ("cascade.observe", "commands.train.methods", False),
        ("commands.cli", "config.train", True),
        ("model.base", "unheard_of", False),
    ],
)
def test_the_walk_itself_can_fail(importer, imported, allowed):
    assert (_broken(importer, imported) is None) == allowed


def test_circles_are_found():
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]
    assert _circles({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == []


def test_relative_and_nested_imports_are_seen(tmp_path):
    path = tmp_path / _PACKAGE / "model" / "deep" / "file.py"
    path.parent.mkdir(parents=True)
    path.write_text("from ...fitting import camera\ndef f():\n    import facerecon_torch.data.splits\nimport torch\n")
    (tmp_path / _PACKAGE / "fitting").mkdir()
    (tmp_path / _PACKAGE / "fitting" / "camera.py").touch()
    modules = _modules(tmp_path)
    assert sorted(_imports("model.deep.file", path, modules)) == ["data.splits", "fitting.camera"]
