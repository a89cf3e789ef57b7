"""Imports point one way, and torch stays where it belongs; read off the syntax tree."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "nptwatch"

MAY_IMPORT = {
    "npt": set(),
    "diagnostics": {"npt"},
    "store": set(),
    "watch": {"npt", "diagnostics", "store"},
    "worker": {"npt", "diagnostics", "store"},
    "alerts": {"npt", "diagnostics", "store"},
    "web": {"npt", "diagnostics", "store", "watch"},
    "exports": {"npt", "diagnostics", "store", "alerts"},
    "service": {"npt", "diagnostics", "store", "watch", "worker", "alerts", "exports", "web"},
    "setup": set(),
    "doctor": {"npt", "diagnostics", "store", "watch", "worker", "alerts", "setup"},
    "demo": {"npt", "diagnostics", "store", "watch", "worker", "alerts", "service", "cli"},
    "cli": {
        "npt",
        "diagnostics",
        "store",
        "watch",
        "worker",
        "alerts",
        "exports",
        "service",
        "demo",
        "doctor",
        "setup",
    },
}
"""Which packages a package may import beside itself; all may import the shared ground."""

SHARED_GROUND = {
    "errors",
    "settings",
    "anchoring",
    "probe_texts",
    "sections",
    "alert_settings",
    "grade_settings",
    "gpu_settings",
    "channel_settings",
    "export_settings",
    "machine_settings",
    "web_settings",
    "health",
    "paths",
    "filesystem",
    "logs",
    "journal",
    "sources",
    "globs",
    "__init__",
}

HEAVY = {"torch", "transformers", "safetensors", "tokenizers"}
MAY_BE_HEAVY = {"npt", "diagnostics", "worker", "demo"}
LIGHT_MODULES = {
    "npt/layout.py",
    "npt/files.py",
    "npt/archive.py",
    "npt/training_state.py",
    "diagnostics/grading.py",
    "diagnostics/report.py",
    "diagnostics/report_fields.py",
    "diagnostics/comparing.py",
    "diagnostics/comparable.py",
    "diagnostics/curves.py",
    "diagnostics/identity.py",
    "diagnostics/results.py",
    "diagnostics/texts.py",
    "diagnostics/full_tests.py",
    "diagnostics/full_report.py",
    "diagnostics/full_text.py",
    "diagnostics/full_details.py",
    "diagnostics/quick_text.py",
    "diagnostics/text_blocks.py",
    "diagnostics/curve_fit.py",
    "diagnostics/falling.py",
    "diagnostics/forecast.py",
}
"""Modules of the heavy packages that the light ones import."""


def modules() -> list[str]:
    """All modules, by path below the package."""
    return sorted(str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py"))


@cache
def tree(module: str) -> ast.Module:
    """Parse a module."""
    return ast.parse((PACKAGE / module).read_text())


def imports(node: ast.AST, *, typing: bool = True) -> Iterator[str]:
    """Give every module named by an import, in functions too.

    Args:
        typing: those under `if TYPE_CHECKING:` too.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports hide their direction"
            assert child.module is not None
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif not typing and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield from imports(other, typing=typing)
        else:
            yield from imports(child, typing=typing)


def package_of(module: str) -> str:
    """Give the first folder of a module's path, or its name where it has none."""
    return module.partition("/")[0].removesuffix(".py")


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    """Down from cli: service -> worker, watch, alerts -> store, diagnostics -> npt; types too."""
    own = package_of(module)
    allowed = MAY_IMPORT.get(own, set()) | {own} | SHARED_GROUND
    if own == "__main__":
        allowed = {"cli"}
    for name in imports(tree(module)):
        if name.startswith("nptwatch."):
            target = name.split(".")[1]
            is_module = (PACKAGE / target).exists() or (PACKAGE / f"{target}.py").exists()
            assert target in allowed or not is_module, f"{module} imports {name}"


@pytest.mark.parametrize("module", modules())
def test_torch_stays_where_it_belongs(module: str) -> None:
    """Only npt, diagnostics, worker and demo load torch or transformers, and not their light parts."""
    if package_of(module) in MAY_BE_HEAVY and module not in LIGHT_MODULES:
        return
    heavy = [n for n in imports(tree(module), typing=False) if n.split(".")[0] in HEAVY]
    assert not heavy, f"{module} imports {heavy}"


def test_light_modules_exist() -> None:
    """The list of light modules names modules that are there."""
    assert not LIGHT_MODULES - set(modules())


@pytest.mark.parametrize(
    "module", sorted({*LIGHT_MODULES, "watch/watcher.py", "service/daemon.py"})
)
def test_light_modules_reach_no_torch(module: str) -> None:
    """Nothing that the watcher or a verb imports at its top leads to torch, however far."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        for name in top_level_imports(tree(here)):
            assert name.split(".")[0] not in HEAVY, f"{module} reaches {name} through {here}"
            todo += module_files(name)


def top_level_imports(node: ast.Module) -> Iterator[str]:
    """Give the imports that happen when the module is imported."""
    outside = [n for n in node.body if not isinstance(n, ast.FunctionDef | ast.ClassDef)]
    for statement in outside:
        yield from imports(ast.Module(body=[statement], type_ignores=[]), typing=False)


def module_files(name: str) -> list[str]:
    """Give the file of a module of ours that an import names; none for others."""
    parts = name.split(".")
    if parts[0] != "nptwatch":
        return []
    candidates = ["/".join(parts[1:]), "/".join(parts[1:-1])]
    return [f"{c}.py" for c in candidates if c and (PACKAGE / f"{c}.py").is_file()]


def test_only_the_store_speaks_sql() -> None:
    """SQLAlchemy, alembic and sqlite3 are the store's; service parses a URL with it."""
    for module in modules():
        if package_of(module) == "store":
            continue
        names = {name.split(".")[0] for name in imports(tree(module), typing=False)}
        allowed = {"sqlalchemy"} if package_of(module) == "service" else set()
        assert not names & ({"sqlalchemy", "alembic", "sqlite3"} - allowed), module


def test_nothing_imports_a_test() -> None:
    """The package stands on its own."""
    for module in modules():
        assert not [n for n in imports(tree(module)) if n.split(".")[0] in {"tests", "pytest"}]
