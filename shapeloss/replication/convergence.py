"""How far from convergence a table of scores is: what the same trainings reach with more steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from shapeloss._resources import PACKAGE
from shapeloss.replication.profile import Experiment, load_experiment
from shapeloss.replication.scores import read_measured
from shapeloss.stats.compare_losses import case_means, compare_losses
from shapeloss.stats.headings import PAPER_METRICS
from shapeloss.stats.tables import format_p


def read_longer(profile: str | Path) -> tuple[Experiment, pd.DataFrame] | None:
    """The profile that `longer` names, and its committed scores; None if the profile names none.

    Args:
        profile: a file `<folder>/reproduce/profiles/<name>.yaml`, or that of the installed package. The longer profile
            lies beside it, its scores at `<folder>/figures/<longer>/per_case.csv`.

    Raises:
        FileNotFoundError: one of both is missing.
        ValueError: the longer profile differs in more than its steps and losses, or has no more steps; its scores are
            not what was recorded.
    """
    path = Path(profile).resolve()
    experiment = load_experiment(path)
    if not experiment.longer:
        return None
    longer = load_experiment(path.with_name(f"{experiment.longer}.yaml"))
    training = replace(longer.training, steps=experiment.training.steps)
    same_steps = longer.model_copy(update={"training": training})
    for section in ("data", "network", "training"):
        if experiment.canonical_json(section) != same_steps.canonical_json(section):
            raise ValueError(f"{path}: 'longer' names {longer.name}, whose section {section} differs; make them equal")
    if longer.training.steps <= experiment.training.steps:
        raise ValueError(
            f"{path}: 'longer' names {longer.name}, which has {longer.training.steps} steps; more than "
            f"{experiment.training.steps} were expected"
        )
    folder = path.parents[1] if path.is_relative_to(PACKAGE) else path.parents[2]
    scores = folder / "figures" / longer.name / "per_case.csv"
    if not scores.is_file():
        raise FileNotFoundError(f"{scores}: is missing; make it by make reproduce PROFILE={longer.name}")
    return longer, read_measured(scores)


def budget_note(
    experiment: Experiment, scores: pd.DataFrame, longer: tuple[Experiment, pd.DataFrame] | None = None
) -> str:
    """Whether a table's losses are compared at convergence, in words for its caption.

    Args:
        scores: rows of `per_case.csv` of the experiment.
        longer: from :func:`read_longer`.
    """
    steps = experiment.training.steps
    if longer is None:
        return f"The losses are compared after {steps} steps; no run with more steps shows whether they have converged."
    other, other_scores = longer
    more, (boundary, dice) = other.training.steps, PAPER_METRICS
    now, then = _means(scores), _means(other_scores)
    common = [loss for loss in other.losses if loss in now[dice] and loss in then[dice]]

    def change(name: str) -> str:
        *others, last = [f"{loss} from {now[name][loss]:.3f} to {then[name][loss]:.3f}" for loss in common]
        return f"{', '.join(others)} and {last}" if others else last

    moved = max((then[boundary][loss] - now[boundary][loss] for loss in common), key=abs)
    spread = max(now[boundary].values()) - min(now[boundary].values())
    first = f"The losses are compared at a fixed, small budget of {steps} steps, not at convergence."
    if abs(moved) <= spread:
        first = f"The losses are compared at a fixed budget of {steps} steps."
    lines = [
        first,
        f"With {more} steps (profile {other.name}, seeds: {', '.join(map(str, other.seeds))}) the boundary Dice goes, "
        f"for {change(boundary)}; the global Dice, for {change(dice)}.",
        f"More steps move a loss by up to {moved:+.3f} in boundary Dice; the largest difference between two losses at "
        f"{steps} steps is {spread:.3f}.",
    ]
    if len(experiment.seeds) > 1:
        deviations = compare_seeds(scores, boundary)
        lines.append(f"The standard deviation over seeds is {min(deviations):.3f} to {max(deviations):.3f}.")
    rows = other_scores[other_scores["structure"] == "mean"]
    for test in compare_losses(rows, next(iter(other.losses)), (boundary,)).to_dict("records"):
        difference = then[boundary][test["reference"]] - then[boundary][test["loss"]]
        p = format_p(test["p_wilcoxon"])
        lines.append(
            f"At {more} steps the boundary Dice of {test['reference']} less that of {test['loss']} is "
            f"{difference:+.3f} (p {p if p.startswith('<') else f'= {p}'})."
        )
    if len(other.seeds) == 1:
        lines.append("That is one training a loss: another seed or another processor may reverse it.")
    return " ".join(lines)


def compare_seeds(scores: pd.DataFrame, metric: str) -> list[float]:
    """Each loss's standard deviation over seeds of its mean score over cases."""
    means = scores[scores["structure"] == "mean"].groupby(["loss", "seed"], sort=False)[metric].mean()
    return [float(value) for value in means.groupby(level="loss", sort=False).std(ddof=1)]


def _means(scores: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Metric → loss → mean score over cases and seeds."""
    rows = scores[scores["structure"] == "mean"]
    means = case_means(rows, list(PAPER_METRICS)).groupby(level="loss").mean()
    return {name: {str(loss): float(value) for loss, value in means[name].items()} for name in PAPER_METRICS}
