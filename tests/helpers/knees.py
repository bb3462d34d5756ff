"""Replications of phantom knees without any training: tests write the predictions."""

from shapeloss.data.manifest import prepare
from shapeloss.phantom.dataset import PhantomOptions, write_dataset
from shapeloss.replication.profile import Experiment


def two_test_knees(folder, **options):
    """Experiment and manifest of four knees, two of them for testing, with the losses `dpce` and `ce` and one seed."""
    split = {"train": 1, "validation": 1, "test": 2}
    experiment = Experiment(name="x", description="x", losses=["dpce", "ce"], data={"split": split}, seeds=(0,))
    write_dataset(folder / "data", 4, PhantomOptions(**options))
    return experiment, prepare(experiment.data, folder / "data", folder / "cases.json")
