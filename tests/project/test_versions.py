"""The job that tries the lowest and newest versions: what it asks for, counts and records."""

import importlib.util
import json
import warnings

import pytest
import yaml
from helpers.project import ROOT
from packaging.requirements import Requirement

spec = importlib.util.spec_from_file_location("versions_job", ROOT / "tests" / "jobs" / "versions.py")
versions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(versions)


def test_every_direct_dependency_has_one_lower_bound():
    """Or its lowest version would be the first that anybody uploaded."""
    bounds = {name: versions.lower_bound(requirement) for name, requirement in versions.direct().items()}
    assert {"torch", "nibabel", "monai", "huggingface-hub", "libigl", "pyvista", "snakemake"} <= set(bounds)
    with pytest.raises(ValueError, match=r"pyproject.toml: edt must have one lower bound, as edt>=1\.2"):
        versions.lower_bound(Requirement("edt"))


def test_versions_above_the_lower_bound_are_told_with_why():
    declared = {"numpy": "2", "pyyaml": "6", "monai": "1.4"}
    taken = {"numpy": "2.1.0", "pyyaml": "6.0", "monai": "1.5.0"}
    assert versions.raised(declared, taken, {"numpy": False, "monai": True}) == {
        "numpy": {"declared": "2", "taken": "2.1.0", "why": "no wheel for this Python"},
        "monai": {"declared": "1.4", "taken": "1.5.0", "why": "another dependency needs more"},
    }


def test_tests_are_counted(tmp_path):
    """One passed, one failed, one broke, one was skipped."""
    kinds = ("", "<failure/>", "<error/>", "<skipped/>")
    cases = "".join(f'<testcase classname="tests.a" name="t{n}">{kind}</testcase>' for n, kind in enumerate(kinds))
    (tmp_path / "a.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>", encoding="utf-8")
    assert versions.counts(tmp_path / "a.xml") == {
        "passed": 1, "failed": 2, "skipped": 1, "failures": ["tests.a::t1", "tests.a::t2"],
    }  # fmt: skip


def test_a_run_takes_the_place_of_an_earlier_one(tmp_path):
    path = tmp_path / "versions.json"
    for python, resolution in (("3.12.1", "lowest"), ("3.11.7", "newest"), ("3.11.7", "lowest"), ("3.12.9", "lowest")):
        versions.record_run({"python": python, "resolution": resolution}, path)
    found = [(run["python"], run["resolution"]) for run in json.loads(path.read_text(encoding="utf-8"))]
    assert found == [("3.11.7", "lowest"), ("3.11.7", "newest"), ("3.12.9", "lowest")]


def test_the_recorded_runs_passed():
    if not versions.RECORD.is_file():
        pytest.skip("no run has been recorded yet: make versions, on an idle machine")
    runs = json.loads(versions.RECORD.read_text(encoding="utf-8"))
    assert all(run["passed"] and not run["failed"] for run in runs)


def test_the_same_pythons_are_tried_everywhere():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert tuple(jobs["test"]["strategy"]["matrix"]["python"]) == versions.PYTHONS
    assert versions.PROJECT["requires-python"] == f">={versions.PYTHONS[0]}"


SCRIPTS = sorted(
    path.stem for path in (ROOT / "reproduce").glob("*.py") if path.stem not in ("readme", "python_check", "alone")
)


@pytest.mark.parametrize("kind", [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
@pytest.mark.parametrize("name", ["shapeloss.example", *SCRIPTS])
def test_a_deprecation_in_our_code_is_an_error_in_the_tests(name, kind):
    warn = compile("warnings.warn('old', kind)", "example.py", "exec")
    with pytest.raises(kind, match="old"):
        exec(warn, {"__name__": name, "warnings": warnings, "kind": kind})
    with pytest.warns(kind, match="old"):
        exec(warn, {"__name__": f"not_{name}", "warnings": warnings, "kind": kind})
