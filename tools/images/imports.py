"""Which files of ours a module needs, read from the import statements of the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path


def closure(source: Path, modules: Sequence[str]) -> list[Path]:
    """Files below `source`, relative and sorted: `modules`, what they import of ours, and the packages around those."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        file = _file(source, module)
        if file is None:
            if module in modules:
                raise FileNotFoundError(f"{source} has no module {module}")
            continue
        found[module] = file.relative_to(source)
        if "." in module:
            waiting.append(module.rpartition(".")[0])
        waiting.extend(_imported(ast.parse(file.read_bytes()), module, is_package=file.name == "__init__.py"))
    return sorted(found.values())


def foreign(source: Path, files: Sequence[Path]) -> set[str]:
    """The top-level modules that these files import and `source` does not have: the standard library's and others'."""
    found: set[str] = set()
    for file in files:
        module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse((source / file).read_bytes())
        found |= {name.partition(".")[0] for name in _imported(tree, module, is_package=file.name == "__init__.py")}
    return {name for name in found if _file(source, name) is None and not (source / name).is_dir()} - {""}


def _file(source: Path, module: str) -> Path | None:
    path = source.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imported(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[str]:
    """Every name that may be a module, imports inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")
            package = package[: len(package) - node.level + is_package] if node.level else []
            base = ".".join([*package, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{name.name}" for name in node.names)
