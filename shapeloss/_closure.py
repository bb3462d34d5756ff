"""What a result depends on: the modules of this package that a module imports, directly or through others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from shapeloss._files import content_hash

PACKAGE = Path(__file__).resolve().parent


def import_closure(*modules: str) -> tuple[Path, ...]:
    """The files of some modules and of all modules of this package that they import, at any depth and inside functions.

    `shapeloss/__init__.py`, which holds the version alone, is not among them.

    Args:
        modules: such as `shapeloss.train`, or a package such as `shapeloss.losses`.

    Raises:
        ValueError: there is no such module, or one has a relative import, which is not followed.
    """
    found: set[Path] = set()
    waiting = [path for module in modules for path in _files_of(module, required=True)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for module in _imports(path, path.stat().st_mtime_ns) for file in _files_of(module)]
    return tuple(sorted(found))


def notebook_closure(source: str) -> tuple[Path, ...]:
    """The files of this package that code imports, at any depth.

    Args:
        source: Python code, such as that of a notebook's cells; lines that begin with % or ! are left out.
    """
    code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    modules = [module for module in _imported(ast.parse(code), "the notebook") if _files_of(module)]
    return import_closure(*modules)


def code_hash(*modules: str) -> str:
    """Hash of the source of a closure: results of other code are not taken for this code's."""
    parts: list[bytes | str] = []
    for path in import_closure(*modules):
        parts += [path.relative_to(PACKAGE).as_posix(), path.read_bytes()]
    return content_hash(*parts)


def _files_of(module: str, required: bool = False) -> list[Path]:
    """The file of a module, and those of the packages that it lies in; none for what is not a module here."""
    package, *parts = module.split(".")
    place = PACKAGE.joinpath(*parts)
    own = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
    if package != "shapeloss" or not parts or own is None:
        if required:
            raise ValueError(f"{module} is not a module of this package; give one such as shapeloss.train")
        return []
    around = [PACKAGE.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts))]
    return [own, *around]


@lru_cache
def _imports(path: Path, _changed: int) -> tuple[str, ...]:
    return tuple(_imported(ast.parse(path.read_text(encoding="utf-8")), str(path)))


def _imported(tree: ast.AST, place: str) -> Iterator[str]:
    """What is imported anywhere in some code, with each name of a `from` import as if it were a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{place}: has a relative import (line {node.lineno}); import by the full name")
            for name in node.names:
                yield str(node.module)
                yield f"{node.module}.{name.name}"
