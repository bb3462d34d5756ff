"""Distance-penalised losses."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _version() -> str:
    """That of the installed package; in a checkout that was not installed, that of its pyproject.toml."""
    try:
        return version("shapeloss")
    except PackageNotFoundError:
        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        return (
            str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
            if project.is_file()
            else "unknown"
        )


__version__ = _version()
