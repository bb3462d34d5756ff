"""Files that come with the package: profiles, the paper's numbers, notebooks; from the wheel or from the checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = {"profiles": "reproduce/profiles", "paper.yaml": "reproduce/paper.yaml",
            "relation.csv": "reproduce/relation.csv", "correlations.csv": "reproduce/correlations.csv",
            "trainings.csv": "reproduce/trainings.csv", "notebooks": "notebooks",
            "figures/study": "figures/study"}  # fmt: skip
"""Name of a resource → where it lies in a checkout; pyproject.toml puts it into the wheel, below `_resources`."""


def resource(name: str) -> Path:
    """The path of a resource.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for path in (PACKAGE / "_resources" / name, PACKAGE.parent / CHECKOUT[name]):
        if path.exists():
            return path
    raise FileNotFoundError(f"this installation of shapeloss has no {name}; install it again, or use a checkout of it")


def find_profile(name: str | Path) -> Path:
    """The file of a profile: the path itself, or the built-in profile of that name.

    Raises:
        FileNotFoundError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = sorted(p.stem for p in resource("profiles").glob("*.yaml"))
    if str(name) in known:
        return resource("profiles") / f"{name}.yaml"
    raise FileNotFoundError(f"there is no profile {name}; give a file, or one of the built-in ones: {', '.join(known)}")
