"""What a table of few trainings leaves open, cited from the committed study: the noise of training, and more steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from shapeloss._resources import PACKAGE
from shapeloss.replication.profile import Experiment, load_experiment
from shapeloss.replication.scores import RECORD, read_record
from shapeloss.replication.study import BOUNDARY, PLAIN, Study, budget_table, read_study
from shapeloss.stats.compare_losses import case_means


@dataclass(frozen=True)
class CitedStudy:
    """The study that a profile names."""

    name: str
    study: Study | None
    """None if it is of other data, and says nothing of these."""


def read_cited_study(profile: str | Path, data_hash: str) -> CitedStudy | None:
    """The committed measurements of the study that a profile names; None if it names none.

    Args:
        profile: a file `<folder>/reproduce/profiles/<name>.yaml`, or that of the installed package. The study's
            measurements lie at `<folder>/figures/<study>/`.
        data_hash: of the data whose table cites the study.

    Raises:
        FileNotFoundError: the study has not been measured.
        ValueError: its trainings differ from the profile's in network or settings.
    """
    path = Path(profile).resolve()
    experiment = load_experiment(path)
    if not experiment.study:
        return None
    folder = (path.parents[1] if path.is_relative_to(PACKAGE) else path.parents[2]) / "figures" / experiment.study
    if not (folder / RECORD).is_file():
        raise FileNotFoundError(f"{folder / RECORD}: is missing; make it by make reproduce PROFILE={experiment.study}")
    record = read_record(folder)
    measured = Experiment.model_validate(record["experiment"])
    for section in ("network", "training"):
        if experiment.canonical_json(section) != measured.canonical_json(section):
            raise ValueError(f"{path}: 'study' names {measured.name}, whose section {section} differs; make them equal")
    same = record["provenance"]["data_hash"] == data_hash
    return CitedStudy(measured.name, read_study(folder) if same else None)


def budget_note(experiment: Experiment, scores: pd.DataFrame, cited: CitedStudy | None = None) -> str:
    """How much of a table's differences the seed and the number of steps explain, in words for its caption.

    Args:
        experiment: of the table.
        scores: rows of its `per_case.csv`.
        cited: from :func:`read_cited_study`.
    """
    steps, seeds = experiment.training.steps, len(experiment.seeds)
    first = f"The losses are compared after {steps} steps"
    if cited is None:
        return f"{first}; no run with more steps shows whether they have converged."
    if cited.study is None:
        return (
            f"{first}. How much the seed and more steps move them was studied with other data (profile {cited.name}), "
            "which says nothing here."
        )
    rows = scores[scores["structure"] == "mean"]
    means = case_means(rows, [BOUNDARY]).groupby(level="loss")[BOUNDARY].mean()
    floor = cited.study.noise(BOUNDARY)
    apart = np.abs(floor.differences)
    between = "one training and another" if seeds == 1 else f"the means of {seeds} trainings and of {seeds} others"
    lines = [
        f"{first}, {'one training' if seeds == 1 else f'{seeds} trainings'} each.",
        f"Of {floor.trainings} trainings of `{PLAIN}` that differ in the seed alone (profile {cited.name}), two differ "
        f"by {np.median(apart):.3f} in boundary Dice in the median and by up to {apart.max():.3f}; {between} differ by "
        f"less than {floor.between(seeds):.3f} in 95 of 100 repetitions.",
        f"The largest difference between two losses here is {means.max() - means.min():.3f}.",
    ]
    if seeds > 1:
        deviations = compare_seeds(scores, BOUNDARY)
        lines.append(f"The standard deviation over seeds is {min(deviations):.3f} to {max(deviations):.3f}.")
    return " ".join([*lines, *_more_steps(cited.study, steps)])


def _more_steps(study: Study, steps: int) -> list[str]:
    """What the next larger budget of the study changes."""
    if not study.varied("steps"):
        return []
    table = budget_table(study, BOUNDARY)
    larger = table[(table["steps"] > steps) & table["change"].notna()]
    more = larger[larger["steps"] == larger["steps"].min()]
    seeds = int(more["seeds"].min())
    moves = [f"that of `{row['loss']}` by {row['change']:+.3f}" for row in more.to_dict("records")]
    listed = f"{', '.join(moves[:-1])} and {moves[-1]}" if len(moves) > 1 else moves[0]
    return [f"Over {seeds} seeds, {int(more['steps'].iloc[0])} steps change the boundary Dice: {listed}."]


def compare_seeds(scores: pd.DataFrame, metric: str) -> list[float]:
    """Each loss's standard deviation over seeds of its mean score over cases."""
    means = scores[scores["structure"] == "mean"].groupby(["loss", "seed"], sort=False)[metric].mean()
    return [float(value) for value in means.groupby(level="loss", sort=False).std(ddof=1)]
