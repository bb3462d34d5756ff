"""Runs unit tests with the lowest and the newest allowed versions of each direct dependency: `make versions`.

    python tests/jobs/versions.py                           # both, with each Python of PYTHONS that is here
    python tests/jobs/versions.py lowest --python 3.12      # these alone

Each run makes a bare environment with the dependencies of EXTRAS by `uv`, and takes wheels alone of direct ones, as
students would: where the lower bound of pyproject.toml is not offered as a wheel for this Python, or another dependency
needs more, the next version is taken, and the record says so. Warnings of deprecation from this package's own code are
errors (pyproject.toml). Writes tests/jobs/versions.json, from which `make readme` fills the table in CONTRIBUTING.md;
runs that are not made again stay in it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from shapeloss._files import write_json
from shapeloss.runs.provenance import commit

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests" / "jobs" / "versions.json"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""From `requires-python` to the newest for which the pinned dependencies have wheels; those of .github/workflows."""
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
"""Name here and name of uv."""
EXTRAS = ("train", "review", "import", "reproduce")
"""What students and reviewers install, and what the workflow needs; each has the core and `io`."""
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "surface-distance", "statsmodels", "medpy")
"""What the tests need of the extra `test`: any version that goes with the ones under test."""
TESTS = ("core", "losses", "metrics", "data", "stats", "review", "cli")
"""Folders of tests."""
LOWEST_LEAVES_OUT = {
    "losses/test_losses.py::test_boundary_is_monais_with_monais_maps": "MONAI has the loss from 1.6 on",
    "metrics/test_metrics.py::test_differs_from[dice]": "of two empty masks MedPy says 0, with a later NumPy NaN",
    "metrics/test_metrics.py::test_a_library_differs_on_empty_masks_where_the_definition_says_so_and_nowhere_else["
    "dice-medpy]": "of two empty masks MedPy says 0, with a later NumPy NaN",
    "data/test_volumes.py::test_what_a_quaternion_may_turn_is_one_grid_at_every_corner": "two axes are a tie",
    "stats/test_crossed.py::test_scores_are_paired_by_case_and_seed": "equal but for the last digit",
    "stats/test_statistics.py::test_written_tables": "pandas 2 reads the last digit otherwise than it was written",
    "stats/test_seeds.py::test_only_cases_of_every_training_count_and_the_rest_is_said": "equal but for the last digit",
}
"""Tests that hold a peculiarity of later libraries → what an earlier one does. All others run with the lowest too."""
PATIENCE = 3600  # seconds for one command


def direct() -> dict[str, Requirement]:
    """Name and requirement of each direct dependency of EXTRAS."""
    optional = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *optional["io"], *(text for extra in EXTRAS for text in optional[extra])]
    requirements = [Requirement(text) for text in texts]
    return {canonicalize_name(r.name): r for r in requirements if r.name != PROJECT["name"]}


def lower_bound(requirement: Requirement) -> str:
    """The version of its `>=`.

    Raises:
        ValueError: it has none.
    """
    bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"pyproject.toml: {requirement} must have one lower bound, as {requirement.name}>=1.2")
    return bounds[0]


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout; its output is kept, and shown if it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )
    if check and done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))[:300]}\n{done.stdout}\n{done.stderr}")
    return done


def raised(declared: dict[str, str], taken: dict[str, str], offered: dict[str, bool]) -> dict[str, dict[str, str]]:
    """Direct dependencies whose lower bound was not taken: both versions and why."""
    return {
        name: {
            "declared": bound,
            "taken": taken[name],
            "why": "another dependency needs more" if offered[name] else "no wheel for this Python",
        }
        for name, bound in declared.items()
        if Version(taken[name]) != Version(bound)
    }


def counts(junit: Path) -> dict[str, Any]:
    """How many tests passed, failed and were skipped, and the names of those that failed."""
    cases = list(ElementTree.parse(junit).getroot().iter("testcase"))
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c for c in cases if c.find("skipped") is not None and c not in failed]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": len(failed),
        "skipped": len(skipped),
        "failures": [f"{c.get('classname')}::{c.get('name')}" for c in failed],
    }


def try_versions(uv: str, python: str, resolution: str, folder: Path, jobs: int, tests: list[str]) -> dict[str, Any]:
    """Install one resolution for one Python, and run the tests: what is recorded of it."""
    requirements = direct()
    place = folder / f"{python}-{resolution}"
    run(uv, "venv", "-q", "--python", python, place)
    wheels = [part for name in requirements for part in ("--only-binary", name)]
    extras = [part for extra in EXTRAS for part in ("--extra", extra)]
    install = (uv, "pip", "install", "-q", "--python", place)
    run(*install, "--resolution", RESOLUTIONS[resolution], *wheels, "-r", ROOT / "pyproject.toml", *extras)
    frozen = place / "frozen.txt"
    frozen.write_text(run(uv, "pip", "freeze", "--python", place).stdout, encoding="utf-8")
    tools = [text for text in PROJECT["optional-dependencies"]["test"] if Requirement(text).name in TOOLS]
    run(*install, "-c", frozen, *tools)
    listed = json.loads(run(uv, "pip", "list", "--python", place, "--format", "json").stdout)
    installed = {canonicalize_name(package["name"]): package["version"] for package in listed}
    taken = {name: installed[name] for name in requirements}
    program = next(path for name in ("bin/python", "Scripts/python.exe") if (path := place / name).is_file())
    junit = place / "tests.xml"
    folders = [f"tests/{name}" for name in tests]
    left_out = LOWEST_LEAVES_OUT if resolution == "lowest" else {}
    done = run(
        *(program, "-m", "pytest", "-m", "unit and not slow", "-n", str(jobs), "--dist", "loadfile"),
        *("-p", "no:cacheprovider", f"--junitxml={junit}", *folders),
        *(f"--deselect=tests/{test}" for test in left_out),
        check=False,
    )
    if done.returncode not in (0, 1):  # 1: tests failed
        raise SystemExit(f"Python {python}, {resolution}: the tests did not run\n{done.stdout}\n{done.stderr}")
    found = counts(junit)
    if found["failed"]:
        print(done.stdout[-6000:], flush=True)
    version = run(program, "-c", "import platform; print(platform.python_version(), platform.system())").stdout.split()
    record = {"python": version[0], "resolution": resolution, "system": version[1], "commit": commit(), **found}
    if resolution == "lowest":
        declared = {name: lower_bound(requirement) for name, requirement in requirements.items()}
        offered = {
            name: run(
                *(uv, "pip", "compile", "-q", "--no-deps", "--python", place, "--only-binary", name, "--no-header"),
                *(_exactly(folder, name, bound),),
                check=False,
            ).returncode
            == 0
            for name, bound in declared.items()
            if Version(taken[name]) != Version(bound)
        }
        record["raised"] = raised(declared, taken, offered)
        record["left_out"] = {test: why for test, why in left_out.items() if test.partition("/")[0] in tests}
    return record | {"tests": tests, "versions": dict(sorted(taken.items()))}


def _exactly(folder: Path, name: str, version: str) -> Path:
    """A file that asks for one version."""
    path = folder / f"{name}.in"
    path.write_text(f"{name}=={version}\n", encoding="utf-8")
    return path


def record_run(record: dict[str, Any], path: Path = RECORD) -> None:
    """Put a run into the record, in the place of an earlier one of the same Python and resolution."""

    def key(values: dict[str, Any]) -> tuple[list[int], str]:
        return [int(part) for part in values["python"].split(".")[:2]], values["resolution"]

    runs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    write_json(path, sorted([*(old for old in runs if key(old) != key(record)), record], key=key))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("resolutions", nargs="*", help=f"some of {', '.join(RESOLUTIONS)}; default: all")
    parser.add_argument("--python", action="append", help=f"a version or a program; default: {', '.join(PYTHONS)}")
    parser.add_argument("--jobs", type=int, default=2, help="tests to run at a time")
    parser.add_argument("--tests", nargs="+", choices=TESTS, default=list(TESTS), help="folders of tests; default: all")
    arguments = parser.parse_args()
    if unknown := set(arguments.resolutions) - set(RESOLUTIONS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(RESOLUTIONS)}")
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        sys.exit("error: uv is not here: make versions installs it, or pip install uv")
    failed = 0
    for python in arguments.python or PYTHONS:
        if run(uv, "python", "find", "--no-python-downloads", python, check=False).returncode:
            print(f"Python {python} is not on this machine: nothing is tried with it", flush=True)
            failed += bool(arguments.python)
            continue
        for resolution in arguments.resolutions or RESOLUTIONS:
            with tempfile.TemporaryDirectory() as folder:
                record = try_versions(uv, python, resolution, Path(folder), arguments.jobs, arguments.tests)
            record_run(record)
            failed += record["failed"]
            numbers = ", ".join(f"{record[name]} {name}" for name in ("passed", "failed", "skipped"))
            print(f"Python {record['python']}, {resolution}: {numbers}", flush=True)
            for name, why in record.get("raised", {}).items():
                print(f"  {name} {why['taken']} instead of {why['declared']}: {why['why']}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
