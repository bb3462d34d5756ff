"""Everything that is measured of a run's predictions, written where tables, verdicts and figures are made of it."""

from __future__ import annotations

from pathlib import Path

from shapeloss.data.manifest import Manifest
from shapeloss.replication.analysis import EXACT, HISTORIES, LANDMARKS, record_measured
from shapeloss.replication.paper import Paper
from shapeloss.replication.profile import Experiment
from shapeloss.replication.scores import (
    RECORD,
    SCORES,
    Provenance,
    read_histories,
    score_against_exact,
    score_runs,
    write_scores,
)
from shapeloss.replication.surface_errors import PAPER_BONES, landmark_errors


def measure(experiment: Experiment, manifest: Manifest, results: str | Path, paper: Paper, folder: str | Path) -> None:
    """Score a run's predictions, and write everything that tables, verdicts and figures are made of into a folder."""
    folder = Path(folder)
    (folder / RECORD).unlink(missing_ok=True)  # of earlier measurements; the new one comes last
    score_runs(experiment, manifest, results, folder / SCORES)
    score_against_exact(experiment, manifest, results, folder / EXACT)
    patterns = [pattern for claim in paper.claims for pattern in claim.landmarks]
    errors = landmark_errors(experiment, manifest, results, patterns, paper.landmark_radius_mm)
    if errors is not None:
        write_scores(errors, folder / LANDMARKS)
    write_scores(read_histories(experiment, results), folder / HISTORIES)
    papers = bool(experiment.data.oai) and set(manifest.classes.values()) == PAPER_BONES
    record_measured(folder, experiment, Provenance.of(experiment, manifest, results), papers)
