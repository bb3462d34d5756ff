"""Deliberate breaks: each entry of tests/mutations/*.toml breaks the code in one way, and must turn its test red.

    python tests/mutate.py                      # all
    python tests/mutate.py losses               # those of tests/mutations/losses.toml
    python tests/mutate.py losses metrics gdice # also those whose name contains "gdice"

An entry has `name`, `file` (from the repository's root), `find` (a text that occurs once in it), `replace`, `test` (a
pytest node or file that must fail) and `why`. Each is applied to a copy of the repository in a temporary folder. The
tests run unbroken first: one that is red anyway proves nothing; nor does a break after which the test cannot even be
collected. An entry whose text or test is not there any more is named as stale: mend it, or remove it. Ends with 1 if
any break that applies stays unseen.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = shutil.ignore_patterns(".*", "results", "__pycache__", "*.egg-info", "build", "dist")
TIMEOUT = 600  # seconds


@dataclass(frozen=True)
class Mutation:
    """One deliberate break."""

    part: str
    """Name of the file in tests/mutations that lists it."""
    name: str
    file: str
    find: str
    replace: str
    test: str
    why: str


@dataclass(frozen=True)
class Result:
    """What the test did: "red" is expected; "green" and "broken" are failures of the test or of the entry."""

    colour: str
    detail: str


def load(root: Path = ROOT) -> list[Mutation]:
    """Every entry of tests/mutations/*.toml.

    Raises:
        ValueError: an entry with other keys, or two of one name in a file.
    """
    mutations = []
    for path in sorted((root / "tests" / "mutations").glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("mutation", []):
            try:
                mutations.append(Mutation(path.stem, **entry))
            except TypeError as error:
                raise ValueError(f"{path.name}, entry {entry.get('name', entry)!r}: {error}") from error
    names = [(mutation.part, mutation.name) for mutation in mutations]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two mutations of one name: {twice}")
    return mutations


def select(mutations: Iterable[Mutation], words: list[str]) -> list[Mutation]:
    """The mutations whose part is one of the words, or whose name contains one; all if there is no word."""
    return [m for m in mutations if not words or m.part in words or any(word in m.name for word in words)]


def stale(mutation: Mutation, root: Path = ROOT) -> str:
    """Why an entry does not apply to the code any more; empty if it does."""
    path, test = root / mutation.file, mutation.test.split("[")[0].split("::")
    if not path.is_file():
        return f"{mutation.file} does not exist"
    if (count := path.read_text(encoding="utf-8").count(mutation.find)) != 1:
        return f"{mutation.file} holds {mutation.find!r} {count} times, not once"
    place = root / test[0]
    if not place.exists() or (len(test) > 1 and f"def {test[-1]}(" not in place.read_text(encoding="utf-8")):
        return f"there is no test {mutation.test}"
    return ""


def apply(mutation: Mutation, root: Path) -> None:
    """Write the broken file of an entry that is not stale."""
    path = root / mutation.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutation.find, mutation.replace), encoding="utf-8")


def pytest(tests: list[str], root: Path) -> Result:
    """Run tests in a copy: red if one fails, green if all pass, broken if they could not run."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider", *tests]
    try:
        run = subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8", timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return Result("broken", f"no end after {TIMEOUT} s: a slow machine, or a break that hangs")
    if run.returncode == 0:
        return Result("green", " ".join(tests))
    failed = re.search(r"^FAILED (.+?)(?: - .*)?$", run.stdout, re.MULTILINE)
    if run.returncode == 1 and failed:
        return Result("red", failed[1])
    return Result("broken", (run.stdout + run.stderr).strip().splitlines()[-1][:200])


def try_tests(tests: list[str], mutation: Mutation | None, root: Path) -> Result:
    """Copy the repository, break the copy if there is a mutation, run the tests there."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(root, copy, ignore=SKIPPED)
        if mutation is not None:
            apply(mutation, copy)
        return pytest(tests, copy)


def red_anyway(tests: list[str], root: Path, pool: ThreadPoolExecutor) -> dict[str, Result]:
    """Those tests that are not green without a break: all in one run, and one by one only if that run is not green."""
    if try_tests(tests, None, root).colour == "green":
        return {}
    results = zip(tests, pool.map(lambda test: try_tests([test], None, root), tests), strict=True)
    return {test: result for test, result in results if result.colour != "green"}


def run(mutations: list[Mutation], root: Path, jobs: int) -> bool:
    """Try every mutation, print a row for each; whether all that apply to the code were seen."""
    seen = 0
    width = max(len(f"{m.part}: {m.name}") for m in mutations)
    listed, mutations = mutations, [mutation for mutation in mutations if not stale(mutation, root)]
    for mutation in listed:
        if reason := stale(mutation, root):
            print(f"{mutation.part + ': ' + mutation.name:{width}}  stale   {reason}", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        useless = red_anyway(sorted({mutation.test for mutation in mutations}), root, pool)
        for test, result in useless.items():
            print(f"not green without a break: {test}: {result.detail}", flush=True)
        usable = [mutation for mutation in mutations if mutation.test not in useless]
        results = pool.map(lambda mutation: try_tests([mutation.test], mutation, root), usable)
        for mutation, result in zip(usable, results, strict=True):
            print(f"{mutation.part + ': ' + mutation.name:{width}}  {result.colour:6}  {result.detail}", flush=True)
            seen += result.colour == "red"
    left = len(listed) - len(mutations)
    print(f"{seen} of {len(mutations)} breaks were seen" + f"; {left} stale" * bool(left))
    return seen == len(mutations)


def main() -> int:
    parser = argparse.ArgumentParser(description="Break the code in each listed way and show which test goes red.")
    parser.add_argument("words", nargs="*", help="parts (names of files in tests/mutations) or pieces of names")
    parser.add_argument("--jobs", type=int, default=2, help="tests to run at a time")
    arguments = parser.parse_args()
    mutations = select(load(), arguments.words)
    if not mutations:
        print(f"no mutation matches {' '.join(arguments.words)}; parts are {sorted({m.part for m in load()})}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / "snapshot"  # so that an edit during the run changes nothing
        shutil.copytree(ROOT, snapshot, ignore=SKIPPED)
        return 0 if run(mutations, snapshot, arguments.jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
