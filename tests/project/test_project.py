"""What the project's own files promise each other: versions, pins, links."""

import re
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml
from helpers.project import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from shapeloss._extras import EXTRAS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = {
    requirement.name.lower().replace("_", "-"): str(requirement.specifier).removeprefix("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
    for requirement in [Requirement(line)]
}
DIRECT = [*PROJECT["dependencies"], *(item for extra in PROJECT["optional-dependencies"].values() for item in extra)]


@pytest.mark.parametrize("text", sorted(set(DIRECT)))
def test_every_direct_dependency_is_pinned_to_a_version_that_it_allows(text):
    requirement = Requirement(text)
    if requirement.name == "shapeloss":
        return
    pin = PINS[requirement.name.lower().replace("_", "-")]
    assert re.fullmatch(r"[\d.]+(post\d+)?", pin)
    assert requirement.specifier.contains(pin)


def test_the_core_is_light_and_takes_any_recent_torch():
    assert [Requirement(text).name for text in PROJECT["dependencies"]] == [
        "torch",
        "numpy",
        "scipy",
        "edt",
        "scikit-image",
    ]
    (torch,) = [Requirement(text) for text in PROJECT["dependencies"] if text.startswith("torch")]
    assert all(torch.specifier.contains(version) for version in ("2.5.1", "2.9.0", PINS["torch"]))
    assert PINS["torch"] == "2.13.0"


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_modules_that_are_asked_for(extra):
    """What `require` and the command line believe of pyproject.toml."""
    names = {
        name.split("[")[0].lower().replace("_", "-")
        for name in (Requirement(text).name for text in PROJECT["optional-dependencies"][extra])
    } - {"shapeloss"}
    distributions = packages_distributions()
    brought = {module: {n.lower().replace("_", "-") for n in distributions[module]} for module in EXTRAS[extra]}
    assert all(brought[module] & names for module in EXTRAS[extra])
    assert names == set.union(*(brought[module] & names for module in EXTRAS[extra]))


def test_the_conda_environment_takes_its_list_from_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    names = [item for item in environment["dependencies"] if isinstance(item, str)]
    python = next(item for item in names if item.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    pip = next(item for item in environment["dependencies"] if isinstance(item, dict))["pip"]
    assert pip == ["--constraint constraints.txt", "--editable .[lab]"]
    binder = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text(encoding="utf-8"))
    assert binder["dependencies"][:-1] == names
    index, *others = binder["dependencies"][-1]["pip"]
    assert index == "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert [item.replace("../", "").replace("..", ".") for item in others] == pip
    assert "lab" in PROJECT["optional-dependencies"]


def test_the_citation_has_the_version_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["preferred-citation"]["title"] == "A Shape Aware Loss for Semantic Segmentation"
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"


MADE_BY_DOCS = ("changelog.md", "contributing.md")  # copies of pages of the root, whose links are turned there
PAGES = [str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md") if p.name not in MADE_BY_DOCS]


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_links_lead_somewhere(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)\)", text)
    missing = [t for t in targets if "://" not in t and not ((ROOT / path).parent / t).exists()]
    assert not missing


def test_the_readme_can_be_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_makefile_explains_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split()
    assert sorted(phony) == sorted(re.findall(r"^([a-z-]+):.*## ", text, re.M))


def test_continuous_integration_calls_targets_of_the_makefile():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    calls = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert calls
    for call in calls:
        command, target, *options = call.split()
        assert command == "make"
        assert target in targets
        for option in options:
            name, _, value = option.partition("=")
            assert name == "PROFILE"
            assert (ROOT / "reproduce" / "profiles" / f"{value}.yaml").is_file()


def test_the_images_are_made_of_what_the_project_has():
    """No image is built in the tests: what the Dockerfile and its page name must be there."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", text, re.M | re.S))
    assert list(stages) == ["base", "batch", "lab"]  # the last is what is built without --target
    for name, commands in stages.items():
        lines = commands.splitlines()
        for line in lines:
            if "$TORCH_INDEX" in line:
                assert "ARG TORCH_INDEX" in lines[: lines.index(line)], name  # a stage has no arguments of others
        made = re.findall(r"\.venv/\.(\w+)", commands)
        assert set(made) <= set(PROJECT["optional-dependencies"])
        (called,) = re.findall(r'CMD \["make", "([a-z-]+)"', commands) or [None]
        if called is not None:
            assert called in targets
            needed = re.search(
                rf"^{called}: \$\(VENV\)/\.(\w+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
            )[1]
            assert needed in made, "make would install something when the container starts"
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--target (\w+)", page + text)) == {"batch"}
    assert set(re.findall(r"--build-arg (\w+)", page + text)) == {"TORCH_INDEX"}


def test_the_examples_of_the_page_on_clusters_are_whole():
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    generic, pod = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.S))
    assert {"executor", "jobs", "default-resources"} <= set(generic)
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    _, script, *options = container["command"]
    code = (ROOT / script).read_text(encoding="utf-8")
    assert all(f'"{option}"' in code for option in options if option.startswith("--"))
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert [value for value in options if value.startswith("/")] == [f"{mounts[0]}/results", f"{mounts[0]}/figures"]
    for option, value in re.findall(r"make reproduce.*?(PROFILE)=([\w-]+)", page):
        assert (ROOT / "reproduce" / "profiles" / f"{value}.yaml").is_file(), option
