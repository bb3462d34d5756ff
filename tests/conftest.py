"""Shared by the tests: one tiny data set and one tiny experiment."""

import json
import locale
import os
import signal
from contextlib import suppress

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
with suppress(ValueError):  # in another thread than the main one
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has all it starts ignore it

import torch

from shapeloss._resources import resource
from shapeloss.data.manifest import prepare
from shapeloss.phantom.contrast import PhantomOptions
from shapeloss.phantom.dataset import write_dataset
from shapeloss.replication.ensure_data import ensure_data
from shapeloss.replication.ensure_runs import ensure_runs
from shapeloss.replication.measure import measure
from shapeloss.replication.paper import read_paper
from shapeloss.replication.profile import Experiment

torch.set_num_threads(1)
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")  # the same examples in each run; pytest --hypothesis-profile=default draws others
TINY = {"shape": [8, 24, 32], "spacing": [12.0, 4.5, 4.5]}


@pytest.fixture(scope="session")
def tiny_experiment():
    """Two losses, ten steps, a network of a few thousand weights."""
    values = {
        "name": "tiny",
        "description": "tiny knees",
        "data": {"phantom": {"subjects": 4, "options": TINY}, "split": {"train": 2, "validation": 1, "test": 1}},
        "losses": ["dpce", "ce"],
        "network": {"options": {"widths": [8, 8], "convolutions": [1, 1], "strides": [[1, 2, 2]]}},
        "training": {"steps": 10, "validate_every": 4, "checkpoint_every": 2},
    }
    return Experiment.model_validate(json.loads(json.dumps(values)))


@pytest.fixture(scope="session")
def tiny_manifest(tiny_experiment, tmp_path_factory):
    """Four tiny phantom knees, checked and assigned."""
    folder = tmp_path_factory.mktemp("knees")
    write_dataset(folder / "data", 4, PhantomOptions(**{k: tuple(v) for k, v in TINY.items()}))
    return prepare(tiny_experiment.data, folder / "data", folder / "cases.json")


@pytest.fixture(scope="session")
def tiny_results(tiny_experiment, tmp_path_factory):
    """The folder of a replication with its data, two trainings and, in `figures`, their scores: to be copied only."""
    results = tmp_path_factory.mktemp("results")
    manifest = ensure_data(tiny_experiment, results)
    ensure_runs(tiny_experiment, manifest, results)
    measure(tiny_experiment, manifest, results, read_paper(resource("paper.yaml")), results / "figures")
    return results


KINDS = {"workflow": "workflow", "journeys": "journey"}
"""Folder of tests → what kind they are; all others are unit tests."""


FIRST = ("workflow", "workshop", "browser")
"""Folders of the tests that take longest: `make test` deals out files in this order, none of these at the end."""


def pytest_collection_modifyitems(items):
    """Mark each test by its kind: `workflow`, `journey`, or `unit`; those that draw their inputs are `fuzz` too."""
    items.sort(key=lambda item: (*FIRST, item.path.parent.name).index(item.path.parent.name))
    for item in items:
        folder = item.path.parent.name
        item.add_marker(KINDS.get(folder, "unit"))
        if hasattr(getattr(item, "obj", None), "hypothesis"):
            item.add_marker("fuzz")


CHARACTERS = locale.setlocale(locale.LC_CTYPE)


@pytest.fixture(autouse=True)
def _characters():
    """SimpleITK's reader of DICOM sets the process's locale to C, in which files are ASCII by default."""
    yield
    locale.setlocale(locale.LC_CTYPE, CHARACTERS)
