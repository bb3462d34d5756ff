"""Where numbers come from: the commit of this checkout, versions, processor, and the file of a custom loss."""

from __future__ import annotations

import inspect
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapeloss._files import file_hash

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[2]
CODE = ("shapeloss", "notebooks", "reproduce", "pyproject.toml", "constraints.txt", ":(glob)*.py", ":(glob)*.yaml")
"""What git is asked about, from the root of the repository: a change of anything else changes no number."""


def commit(*files: str, root: Path = ROOT) -> str:
    """The commit of the checkout at `root`: 12 digits, and "+changes" where code, profiles or `files` differ from it.

    A file that git does not track counts as a change. "unknown" without git, and where `root` is not itself a
    checkout: the commit of a repository around it says nothing of it.
    """
    # variables such as GIT_DIR would lead to another repository; a checkout of another user may be read
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"

    def git(*arguments: str) -> str:
        command = ["git", "-c", f"safe.directory={root}", *arguments]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=True)
        return os.fsdecode(done.stdout).strip("\n")

    try:
        if not Path(git("rev-parse", "--show-toplevel")).samefile(root):
            return "unknown"
        head = git("rev-parse", "--short=12", "HEAD")
        inside = [str(path) for file in files if (path := Path(file).resolve()).is_relative_to(root)]
        changed = git("status", "--porcelain", "--untracked-files=all", "--", *CODE, *inside)
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository, or none with a commit
        return "unknown"
    return head + ("+changes" if changed else "")


def custom_loss_source(loss: object) -> dict[str, str]:
    """Class of a custom loss and SHA-256 of its file, on which its maps depend; nothing for this package's losses."""
    cls = type(loss)
    if cls.__module__.partition(".")[0] in ("shapeloss", "builtins"):
        return {}
    source = inspect.getsourcefile(cls)
    if source is None:
        return {}
    return {"class": f"{cls.__module__}:{cls.__qualname__}", "code": file_hash(Path(source))}


def provenance(
    precision: str = "", loss: object = None, device: torch.device | None = None, memory_format: str = ""
) -> dict[str, Any]:
    """Where numbers come from: commit, versions, machine, device, precision; the file of a custom loss, its SHA-256."""
    # takes seconds, for which whoever asks for the commit alone does not wait
    from shapeloss.runs.device import device_record, find_device

    own = custom_loss_source(loss)
    source = inspect.getsourcefile(type(loss)) if own else None
    return {
        "commit": commit(*[source] if source else []),
        "python": platform.python_version(),
        "node": platform.node(),
        "system": platform.platform(),
        "versions": {name: version(name) for name in ("torch", "monai", "edt", "numpy", "scipy")},
        "precision": precision,
        "memory_format": memory_format,
        **device_record(device or find_device()),
    } | ({"custom_loss": own | {"file": Path(source).name}} if source else {})
