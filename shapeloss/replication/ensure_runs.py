"""For notebooks that are opened by themselves: the trainings and scores of a profile, made where nobody made them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shapeloss.data.manifest import Manifest
from shapeloss.progress import progress_bar
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import SCORES, read_scores, run_folders, score_runs
from shapeloss.runs.run import train


def ensure_runs(experiment: Experiment, manifest: Manifest, results: str | Path) -> None:
    """Train each loss and seed whose training has not ended; says which."""
    missing = [run for run in run_folders(experiment, results) if not (run[2] / "run.json").is_file()]
    if missing:
        names = ", ".join(f"{loss} (seed {seed})" for loss, seed, _ in missing)
        place = f"{results}/{experiment.runs_folder}"
        print(f"{place}: not trained yet: {names}; training them with profile {experiment.name}")
    for loss, seed, folder in missing:
        train(experiment, manifest, loss, seed, folder, Path(results) / "maps", progress_bar(f"{loss}, seed {seed}"))


def ensure_variations(experiment: Experiment, manifest: Manifest, results: str | Path) -> None:
    """:func:`ensure_runs` for each variation."""
    for name in experiment.variations:
        ensure_runs(experiment.variation(name), manifest, results)


def ensure_scores(experiment: Experiment, manifest: Manifest, results: str | Path, figures: str | Path) -> pd.DataFrame:
    """The scores of all test predictions; made, with the trainings that they need, if they are not there."""
    path = Path(figures) / SCORES
    if not path.is_file():
        ensure_runs(experiment, manifest, results)
        print(f"{path} is not there yet; scoring the predictions")
        return score_runs(experiment, manifest, results, path)
    return read_scores(figures)
