"""For notebooks that are opened by themselves: the data of a profile, made where nobody made them."""

from __future__ import annotations

from pathlib import Path

from shapeloss.data.manifest import Manifest, prepare, read_manifest
from shapeloss.phantom.dataset import write_dataset
from shapeloss.replication.profile import Experiment


def ensure_data(experiment: Experiment, results: str | Path) -> Manifest:
    """The checked data set of a replication; that of a phantom is made if it is not there, which is said.

    Args:
        experiment: of the profile.
        results: the working folder; the phantom goes into `data`, the list of checked cases into `cases.json`.

    Raises:
        FileNotFoundError: the profile has other data, which were not prepared yet; says what to run.
    """
    results = Path(results)
    phantom = experiment.data.phantom
    if not (results / "cases.json").is_file() and phantom is not None:
        print(f"{results}: there is no data set of profile {experiment.name} yet; making {phantom.subjects} knees")
        write_dataset(results / "data", phantom.subjects, phantom.options, phantom.seed)
        prepare(experiment.data, results / "data", results / "cases.json", experiment.name)
    return read_manifest(results / "cases.json")
