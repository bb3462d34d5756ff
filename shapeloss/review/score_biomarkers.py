"""Biomarkers of folders of label maps: what `shapeloss evaluate --biomarkers` adds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from shapeloss.data.manifest import read_sides
from shapeloss.data.volume import Volume, read_labels
from shapeloss.metrics.agreement import LIMITS_FROM
from shapeloss.metrics.biomarkers import BONES, Side, biomarker_unit
from shapeloss.metrics.knee import all_biomarkers, side_of
from shapeloss.metrics.shape import SHAPE_ERRORS, TrueShape
from shapeloss.replication.agreement import agreement_markdown, agreement_table
from shapeloss.review.score_folders import Scores, keep_labels, match


def knee_sides(given: str, truth: str | Path, cases: list[str]) -> dict[str, Side | None]:
    """The side of each knee.

    Args:
        given: "left" or "right", for all; a CSV with the columns case and side; or nothing: the side is then that which
            `shapeloss import` recorded, or that of `landmarks/<case>.json` (name → world mm, with names that begin with
            medial and lateral), in the truth's folder or the one above, and None without either.
        truth: folder of the truth, or one file.
        cases: names.

    Raises:
        ValueError: another word, a table without these columns, or a side that is neither left nor right.
        FileNotFoundError: no such table.
    """
    if given in get_args(Side):
        return dict.fromkeys(cases, given)  # type: ignore[arg-type]
    if given:
        if Path(given).suffix.lower() != ".csv":
            raise ValueError(f"--side must be left, right, or a CSV with the columns case and side; got {given!r}")
        table = pd.read_csv(given, dtype=str)
        if not {"case", "side"} <= set(table.columns):
            raise ValueError(f"{given}: has the columns {', '.join(table.columns)}; case and side were expected")
        named = dict(zip(table["case"], table["side"].str.strip().str.lower(), strict=True))
        if wrong := {case: side for case, side in named.items() if side not in get_args(Side)}:
            case, side = next(iter(wrong.items()))
            raise ValueError(f"{given}: case {case} has the side {side!r}; left or right was expected")
        return {case: named.get(case) for case in cases}
    folder = Path(truth) if Path(truth).is_dir() else Path(truth).parent
    sides: dict[str, Side | None] = dict.fromkeys(cases)
    for place in (folder, folder.parent):
        recorded = read_sides(place)
        for case in cases:
            landmarks = place / "landmarks" / f"{case}.json"
            if case in recorded:
                sides[case] = recorded[case]  # type: ignore[assignment]
            elif landmarks.is_file():
                sides[case] = side_of(json.loads(landmarks.read_text(encoding="utf-8")))
    return sides


def measure_folders(
    predictions: str | Path,
    truth: str | Path,
    scores: Scores,
    merge: Mapping[int, int] | None = None,
    merge_predictions: Mapping[int, int] | None = None,
    side: str = "",
    progress: bool = True,
) -> pd.DataFrame:
    """The biomarkers of the cases that were scored.

    Args:
        predictions, truth, merge, merge_predictions: as for :func:`shapeloss.review.score_folders.score_folders`.
        scores: what it returned: which cases and structures there are.
        side: as for :func:`knee_sides`.
        progress: show a bar with the time left.

    Returns:
        One row per case, structure and biomarker: unit, truth, prediction, difference (prediction − truth), and reason,
        why one of the two is NaN.
    """
    sides = knee_sides(side, truth, _cases(scores))
    rows: list[dict[str, Any]] = []
    for case, *both in _pairs(predictions, truth, scores, merge, merge_predictions, progress and "biomarkers"):
        found, true = (all_biomarkers(v.array, v.affine, scores.classes, sides[case]) for v in both)
        for (structure, biomarker), value in true.items():
            other = found[structure, biomarker]
            whys = (("truth", value.reason), ("prediction", other.reason))
            rows.append({
                "case": case, "structure": structure, "biomarker": biomarker, "unit": biomarker_unit(biomarker),
                "truth": value.value, "prediction": other.value, "difference": other.value - value.value,
                "reason": "; ".join(f"{who}: {why}" for who, why in whys if why),
            })  # fmt: skip
    return pd.DataFrame(rows)


def measure_shapes(
    predictions: str | Path,
    truth: str | Path,
    scores: Scores,
    merge: Mapping[int, int] | None = None,
    merge_predictions: Mapping[int, int] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Case, structure and :data:`shapeloss.metrics.shape.SHAPE_ERRORS` of the cases that were scored.

    A structure that a truth lacks has no surface and no row; of one that a prediction lacks the errors are infinite.

    Args:
        As for :func:`measure_folders`.
    """
    rows: list[dict[str, Any]] = []
    for case, found, true in _pairs(predictions, truth, scores, merge, merge_predictions, progress and "shape errors"):
        for label, structure in scores.classes.items():
            if shape := TrueShape.of(true.array == label, true.spacing, true.affine):
                rows.append({"case": case, "structure": structure} | shape.errors(found.array == label))
    return pd.DataFrame(rows, columns=["case", "structure", *SHAPE_ERRORS])


def _cases(scores: Scores) -> list[str]:
    return list(dict.fromkeys(scores.per_case["case"]))


def _pairs(
    predictions: str | Path,
    truth: str | Path,
    scores: Scores,
    merge: Mapping[int, int] | None,
    merge_predictions: Mapping[int, int] | None,
    bar: str | Literal[False],
) -> Iterator[tuple[str, Volume, Volume]]:
    """(case, prediction, truth) of the cases that were scored: their structures, in RAS; `bar` names the progress."""
    pairs, _ = match(Path(predictions), Path(truth))
    merges = {**(merge or {}), **(merge_predictions or {})}, dict(merge or {})
    for case in tqdm(_cases(scores), desc=bar or None, unit="case", disable=not bar):
        found, true = (_kept(path, scores.classes, names) for path, names in zip(pairs[case], merges, strict=True))
        yield case, found, true


def _kept(path: Path, classes: Mapping[int, str], merge: Mapping[int, int]) -> Volume:
    volume = read_labels(path)
    kept, _ = keep_labels(volume.array, classes, merge)
    return Volume(kept, volume.affine).oriented("RAS")


def biomarkers_markdown(rows: pd.DataFrame) -> str:
    """Bias and limits of agreement of all biomarkers, what could not be measured, and whether the sides are known."""
    table = agreement_table(rows)
    lines = [
        "## Biomarkers", "",
        "Prediction less truth: bias and limits of agreement, bias ± 1.96 SD (Bland & Altman 1999), with 95 %",
        f"intervals, from {LIMITS_FROM} cases on; p is that of Wilcoxon's signed-rank test of no bias.", "",
        agreement_markdown(table), "",
    ]  # fmt: skip
    if rows["biomarker"].str.contains("towards_").any():
        lines += ["The side of a knee is not known: medial and lateral are unnamed. Give --side left or right.", ""]
    if set(rows["structure"].str.lower()) & set(BONES):
        absent = rows[~np.isfinite(rows["difference"])]
        reasons = absent.groupby("reason", sort=False)["case"].nunique()
        lines += [f"- Not measured in {count} case(s): {reason}." for reason, count in reasons.items()]
    return "\n".join(lines).rstrip() + "\n"


def shapes_markdown(rows: pd.DataFrame) -> str:
    """The shape errors of each structure: mean over the cases in which it was found, and how many lack it."""
    lines = ["## Shape errors", "", f"| structure | n | missed | {' | '.join(SHAPE_ERRORS)} |"]
    lines += ["|" + " --- |" * (3 + len(SHAPE_ERRORS))]
    for structure, group in rows.groupby("structure", sort=False):
        found = group[np.isfinite(group["absolute_mm"])]
        means = [f"{found[name].mean():{'+' if name == 'bias_mm' else ''}.3f}" for name in SHAPE_ERRORS]
        lines.append(f"| {structure} | {len(found)} | {len(group) - len(found)} | {' | '.join(means)} |")
    return "\n".join([*lines, "", *(f"- {name}: {text}." for name, text in SHAPE_ERRORS.items())]) + "\n"
