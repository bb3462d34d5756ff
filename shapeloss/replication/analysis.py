"""From what a run measured to its table, verdicts and figures; nothing here reads volumes or trains.

`shapeloss.replication.measure` writes all that is needed of a run into its folder of figures. Everything else follows
from these files alone, so that anyone can make the committed tables and verdicts again in seconds (`shapeloss
reanalyze`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from pydantic import TypeAdapter

from shapeloss._resources import find_profile
from shapeloss.plotting.charts import figure_scores
from shapeloss.plotting.curves import figure_training
from shapeloss.plotting.style import save_figure
from shapeloss.replication.claims import evaluate_claims, findings_table, write_claims
from shapeloss.replication.convergence import budget_note, read_cited_study
from shapeloss.replication.figures import figure_claims
from shapeloss.replication.paper import Paper
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import READER, RECORD, SCORES, Provenance, read_measured, read_record, write_record
from shapeloss.stats.tables import summary_table, write_table

EXACT, LANDMARKS, HISTORIES = "per_case_exact.csv", "landmark_errors.csv", "histories.csv"


@dataclass(frozen=True)
class Evaluation:
    """What :func:`shapeloss.replication.measure.measure` wrote into a folder."""

    experiment: Experiment
    scores: pd.DataFrame
    """One row per loss, seed, case and structure."""
    exact: pd.DataFrame | None
    """The same against the phantom's exact surfaces."""
    landmarks: pd.DataFrame | None
    """Surface errors near the landmarks that the paper's claims name."""
    histories: pd.DataFrame
    provenance: Provenance
    papers_own_data: bool
    """Whether the data are of the kind that the paper used."""
    profile: Path | None = None
    """The file of the profile, beside which its study lies; None for the built-in one of its name."""

    @property
    def means(self) -> pd.DataFrame:
        """The scores as means over the structures."""
        return self.scores[self.scores["structure"] == "mean"]

    @property
    def source(self) -> str:
        """Where the numbers come from, for captions."""
        return self.provenance.line(self.experiment)

    @property
    def caption(self) -> str:
        """Where the numbers come from, and how much of them the seed and the number of steps explain."""
        cited = None
        if self.experiment.study:
            profile = self.profile or find_profile(self.experiment.name)
            cited = read_cited_study(profile, self.provenance.data_hash)
        return f"{self.source} {budget_note(self.experiment, self.scores, cited)}"


def record_measured(
    folder: str | Path, experiment: Experiment, provenance: Provenance, papers_own_data: bool = False
) -> None:
    """Write what the tables of a folder are of, and their checksums: :class:`Evaluation` without the tables."""
    record = {
        "experiment": experiment.model_dump(mode="json"),
        "provenance": asdict(provenance),
        "papers_own_data": papers_own_data,
    }
    write_record(folder, record, [SCORES, EXACT, LANDMARKS, HISTORIES])


def read_evaluation(folder: str | Path, profile: str | Path | None = None) -> Evaluation:
    """What :func:`shapeloss.replication.measure.measure` wrote.

    Args:
        folder: of the figures.
        profile: the file of the profile, if it is no built-in one.

    Raises:
        FileNotFoundError: nothing was measured yet; says what to run.
        ValueError: a file is not what was measured; says what to do.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise FileNotFoundError(f"{folder} holds no {RECORD}: run notebook 03 first, which scores the predictions")

    def read(name: str) -> pd.DataFrame | None:
        return read_measured(folder / name) if (folder / name).is_file() else None

    record = read_record(folder)
    return Evaluation(
        Experiment.model_validate(record["experiment"]),
        read_measured(folder / SCORES),
        read(EXACT),
        read(LANDMARKS),
        read_measured(folder / HISTORIES),
        TypeAdapter(Provenance).validate_python(record["provenance"]),
        record["papers_own_data"],
        None if profile is None else Path(profile),
    )


def write_tables(evaluation: Evaluation, paper: Paper, folder: str | Path) -> None:
    """Write `table1` and, where there are exact surfaces, `table_exact`, each as CSV, Markdown and LaTeX."""
    table = summary_table(evaluation.means, paper.reported(), reference=next(iter(evaluation.experiment.losses)))
    write_table(table, Path(folder) / "table1", evaluation.caption)
    if evaluation.exact is not None:
        by_truth = summary_table(evaluation.exact[evaluation.exact["structure"] == "mean"], reference=READER)
        caption = f"Truth: the phantom's exact surfaces. {evaluation.caption}"
        write_table(by_truth, Path(folder) / "table_exact", caption)


def write_verdicts(evaluation: Evaluation, paper: Paper, folder: str | Path) -> Figure:
    """Write `claims.md` and its picture; returns the picture."""
    findings = evaluate_claims(paper, evaluation.means, evaluation.landmarks)
    data, caption = evaluation.experiment.description, evaluation.caption
    write_claims(Path(folder) / "claims.md", paper, findings, data, caption, evaluation.papers_own_data)
    return _saved(figure_claims(paper, findings_table(findings)), Path(folder) / "claims")


def draw_scores(evaluation: Evaluation, folder: str | Path) -> Figure:
    """Draw every test case under every loss."""
    return _saved(figure_scores(evaluation.means), Path(folder) / "scores")


def draw_training(evaluation: Evaluation, folder: str | Path) -> Figure:
    """Draw the learning curves."""
    return _saved(figure_training(evaluation.histories), Path(folder) / "training")


def _saved(figure: Figure, stem: Path) -> Figure:
    save_figure(figure, stem)
    return figure


def analyse(folder: str | Path, paper: Paper, output: str | Path) -> None:
    """Make tables, verdicts and figures of what was measured into one folder, and write them to another."""
    evaluation = read_evaluation(folder)
    write_tables(evaluation, paper, output)
    write_verdicts(evaluation, paper, output)
    draw_scores(evaluation, output)
    draw_training(evaluation, output)
