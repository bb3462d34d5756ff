"""Folders of label maps → per-case scores and a summary: what `shapeloss evaluate` does.

Cases are matched by file name. A prediction is scored on the grid of its truth; where the two differ it is a problem,
for resampling would change the score. Every problem is reported, and the other cases are scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from shapeloss._files import atomic, write_text
from shapeloss.data.axes import PLANES, acquisition_axis, plane_name
from shapeloss.data.layout import contradiction, read_names
from shapeloss.data.names import case_name, find_volumes, fold, volume_name
from shapeloss.data.volume import Volume, grid_difference, read_labels
from shapeloss.metrics import METRICS, score_case
from shapeloss.metrics.geometry import Edge, check_choice

SUMMARY_METRICS = (
    "dice", "boundary_dice_in_plane", "nsd_surface_1mm", "hd95_surface_mm", "assd_surface_mm", "volume_error_percent",
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Scores of the cases that could be scored, and what was wrong with the others."""

    per_case: pd.DataFrame
    """One row per case and structure, "mean" and "merged" too: `case` and the columns of `score_case`."""
    classes: dict[int, str]
    ignored: dict[int, int] = field(default_factory=dict)
    """Labels taken for background because they were not named → number of files that have them."""
    planes: tuple[str, ...] = ()
    """Planes of the slices, as far as in-plane metrics are concerned."""
    problems: tuple[str, ...] = ()
    edge: Edge = "open"
    """Whether the edge of the field of view is a boundary ("closed") or not."""
    named_by: str = ""
    """Where the names of the structures come from, in a few words."""
    notes: tuple[str, ...] = ()
    """Files that were not used, and are no fault."""


def match(
    predictions: Path, truth: Path, notes: list[str] | None = None
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Case → (prediction, truth), by name, and the problems: missing, surplus or doubled files, links out of a folder.

    Two files are one case, whatever their names. `notes` gets a line on what else lies in a folder.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: a file with a folder.
    """
    for path in (predictions, truth):
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file or folder; check the name")
    if predictions.is_file() != truth.is_file():
        raise ValueError(f"{predictions} and {truth}: give two folders or two files, not one of each")
    if truth.is_file():
        return {volume_name(truth): (predictions, truth)}, []
    found, problems = find_volumes(predictions, notes)
    truths, more = find_volumes(truth, notes)
    problems += more
    there, expected = ({case_name(path) for path in folder.iterdir()} for folder in (predictions, truth))
    missing = sorted(set(truths) - there)  # a file that was refused has its own line
    surplus = sorted(set(found) - expected)
    lines = [f"{truths[name]}: has no prediction in {predictions} by the name {name}; add it" for name in missing]
    lines += [
        f"{found[name]}: has no truth in {truth} by the name {name}; add it or remove the file" for name in surplus
    ]
    return {name: (found[name], truths[name]) for name in sorted(set(truths) & set(found))}, problems + lines


def score_folders(
    predictions: str | Path,
    truth: str | Path,
    classes: Mapping[int, str] | None = None,
    merge: Mapping[int, int] | None = None,
    merge_predictions: Mapping[int, int] | None = None,
    plane: str = "auto",
    metrics: Sequence[str] = tuple(METRICS),
    jobs: int = 1,
    progress: bool = True,
    edge: Edge = "open",
) -> Scores:
    """Score label maps against their truth.

    Args:
        predictions: a folder of label maps (NIfTI, NRRD, MetaImage), or one file.
        truth: the same, with the same names; formats may differ.
        classes: label → name of the structures to score; all other labels count as background. None: the labels that
            occur in a truth, and those of the `dataset.json` in the truth's folder or the one above that occur in a
            prediction, by its names. Without such a file they are named "label 1" and so on; if all truths are empty,
            every label of a prediction is one.
        merge: old label → new label, applied to both sides first; other labels stay.
        merge_predictions: more of it for the predictions alone; where both name a label, this one counts there.
        plane: of the slices for the in-plane metrics: sagittal, coronal, axial, or auto, across the longest voxel side
            (sagittal if all are equal).
        metrics: names in `METRICS`.
        jobs: processes.
        progress: show a bar with the time left.
        edge: "closed" takes the edge of the field of view for a boundary, as surface-distance and MONAI do.

    Raises:
        ValueError, FileNotFoundError: an argument that cannot be used, names that contradict `dataset.json`, a label to
            ignore there, or no case that can be scored.
    """
    check_options(plane, metrics, edge)
    notes: list[str] = []
    pairs, problems = match(Path(predictions), Path(truth), notes)
    merge = dict(merge or {})
    merges = ({**merge, **(merge_predictions or {})}, merge)
    description, declared = read_names(Path(truth) if Path(truth).is_dir() else Path(truth).parent, merge)
    if wrong := contradiction(classes or {}, declared, merge):
        raise ValueError(
            f"--labels contradicts {description}: {wrong}; correct --labels, or leave it out: those names are then used"
        )
    names = dict(classes) if classes is not None else _structures(pairs, merges, declared)
    named_by = "--labels" if classes is not None else str(description or "their labels, for no dataset.json names them")
    rows: list[dict[str, Any]] = []
    ignored: Counter[int] = Counter()
    planes: set[str] = set()
    work = {case: (case, *files, names, merges, plane, tuple(metrics), edge) for case, files in pairs.items()}
    for case, result in _run(work, max(1, min(jobs, len(work))), progress):
        if isinstance(result, str):
            problems.append(result)
            continue
        scored, unknown, used = result
        rows += [{"case": case} | row for row in scored]
        ignored.update(unknown)
        planes.add(used)
    if not rows:
        shown = "".join(f"\n  - {problem}" for problem in fold(problems))
        raise ValueError(f"no case of {predictions} could be scored against {truth}{shown}")
    per_case = pd.DataFrame(rows).sort_values("case", kind="stable").reset_index(drop=True)
    left_out = dict(sorted(ignored.items()))
    return Scores(per_case, names, left_out, tuple(sorted(planes)), tuple(problems), edge, named_by, tuple(notes))


def check_options(plane: str, metrics: Sequence[str], edge: str) -> None:
    """Raise ValueError if one of these is not what :func:`score_folders` takes."""
    check_choice("edge", edge, get_args(Edge))
    if plane not in ("auto", *PLANES):
        raise ValueError(f"plane must be auto, {', '.join(PLANES)}; got {plane!r}")
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"no metric {', '.join(unknown)}; there are {', '.join(METRICS)}")


def _structures(
    pairs: Mapping[str, tuple[Path, Path]],
    merges: tuple[Mapping[int, int], Mapping[int, int]],
    declared: Mapping[int, str],
) -> dict[int, str]:
    """Label → name of each structure that occurs in a truth, and of the declared ones that occur in a prediction.

    Where all truths are empty and nothing is declared, what the predictions hold. Names of merged labels are joined.
    """
    names: dict[int, list[str]] = {}
    for old, name in declared.items():
        names.setdefault(merges[1].get(old, old), []).append(name)
    labels: set[int] = set()
    for side in (1, 0):
        if side == 0 and labels and not names:
            break
        found: set[int] = set()
        for files in pairs.values():
            try:
                values = np.unique(read_labels(files[side]).array).tolist()
            except (ValueError, OSError, MemoryError):
                continue  # named when the case is scored
            found |= {merges[side].get(int(value), int(value)) for value in values} - {0}
        labels |= found & set(names) if side == 0 and names else found
    return {label: "+".join(names.get(label, ())) or f"label {label}" for label in sorted(labels or {1})}


def _run(work: Mapping[str, tuple[Any, ...]], jobs: int, progress: bool) -> Any:
    """(case, result) for each piece of work, in the order in which they end."""
    bar = tqdm(total=len(work), desc="score", unit="case", disable=not progress)
    with bar:
        if jobs == 1:
            for case, arguments in work.items():
                yield case, score_pair(*arguments)
                bar.update()
            return
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(score_pair, *arguments): case for case, arguments in work.items()}
            for future in as_completed(futures):
                case = futures[future]
                try:
                    yield case, future.result()
                except BrokenProcessPool:
                    prediction = work[case][1]
                    yield case, f"{prediction}: its process was ended, perhaps for lack of memory; use fewer --jobs"
                bar.update()


def score_pair(
    case: str, prediction: Path, truth: Path, classes: dict[int, str], merges: tuple[dict[int, int], dict[int, int]],
    plane: str, metrics: tuple[str, ...], edge: Edge,
) -> tuple[list[dict[str, Any]], set[int], str] | str:  # fmt: skip
    """Rows, labels taken for background and the plane of one case; or the problem, in one line.

    The arguments are those of :func:`score_folders`; `merges` are those of the prediction and of the truth.
    """
    try:
        maps = [read_labels(path) for path in (prediction, truth)]
        if difference := grid_difference(*maps):
            return (
                f"{prediction}: its grid is not that of {truth}: {difference}; resample it with nearest neighbour "
                "onto the grid of the truth"
            )
        kept, unknown = [], set()
        for volume, merge in zip(maps, merges, strict=True):
            labels, others = keep_labels(volume.array, classes, merge)
            kept.append(Volume(labels, volume.affine).oriented("RAS"))
            unknown |= others
        found, true = kept
        axis = PLANES[plane] if plane != "auto" else acquisition_axis(true.spacing)
        rows = score_case(true.array, found.array, true.spacing, classes, axis, metrics, edge)
        return rows, unknown, plane_name(axis)
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())
        return text if str(prediction) in text or str(truth) in text else f"{prediction}: {text}"
    except MemoryError:
        return f"{prediction}: there is not enough memory to score it; use fewer --jobs"


def keep_labels(
    labels: np.ndarray, classes: Mapping[int, str], merge: Mapping[int, int]
) -> tuple[np.ndarray, set[int]]:
    """Labels after merging, those that are not in `classes` set to 0; and which those were."""
    values, places = np.unique(labels, return_inverse=True)
    new = np.array([merge.get(int(value), int(value)) for value in values], dtype=np.int32)
    unknown = {int(value) for value in new if value and int(value) not in classes}
    return np.where(np.isin(new, list(classes)), new, 0)[places].reshape(labels.shape), unknown


def summarise(scores: Scores) -> pd.DataFrame:
    """One row per structure and metric: unit, direction, n, missed, false positive, mean, SD, median, least, largest.

    A missed structure counts with the metric's worst value; nothing leaves a mean silently. A metric that is infinite
    for some case (the relative volume of a false positive structure) has an infinite mean.
    """
    rows = []
    columns = [name for name in scores.per_case.columns if name in METRICS]
    for structure, group in scores.per_case.groupby("structure", sort=False):
        counts = {flag: int(group[flag].sum()) for flag in ("missed", "false_positive", "absent")}
        for name in columns:
            values = group[name].to_numpy(float)
            finite = bool(np.isfinite(values).all())
            rows.append({
                "structure": structure, "metric": name, "unit": METRICS[name].unit,
                "better": METRICS[name].direction, "n": len(values), **counts, "mean": values.mean(),
                "sd": values.std(ddof=1) if finite and len(values) > 1 else np.nan, "median": np.median(values),
                "min": values.min(), "max": values.max(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def summary_markdown(scores: Scores, predictions: str | Path, truth: str | Path, short: bool = False) -> str:
    """The summary as a page: mean ± SD per structure, counts, what was left out, and what the metrics are.

    `short`: of many problems of one kind, the first few and a count.
    """
    summary = summarise(scores)
    shown = [name for name in SUMMARY_METRICS if name in set(summary["metric"])] or list(summary["metric"].unique())[:6]
    cases = scores.per_case["case"].nunique()
    units = {name: "" if METRICS[name].unit == "1" else f" ({METRICS[name].unit})" for name in shown}
    header = ["structure", "n", "missed", "false positive", *(f"{name}{units[name]}" for name in shown)]
    lines = [
        f"# {Path(predictions).name} against {Path(truth).name}", "",
        f"Mean ± SD over {cases} case{'s' if cases != 1 else ''}.", "",
        "| " + " | ".join(header) + " |", "|" + " --- |" * len(header),
    ]  # fmt: skip
    for structure, group in summary.groupby("structure", sort=False):
        by_metric = {row["metric"]: row for row in group.to_dict("records")}
        first = next(iter(by_metric.values()))
        cells = [str(structure), str(first["n"]), str(first["missed"]), str(first["false_positive"])]
        lines.append("| " + " | ".join([*cells, *(_mean_sd(by_metric[name]) for name in shown)]) + " |")
    lines += [
        "", "“mean” is the mean over the structures of a case, “merged” takes them as one mask. A missed structure",
        f"counts with the worst value. Slices of the in-plane metrics: {', '.join(scores.planes)}.",
        f"The edge of the field of view is {'a' if scores.edge == 'closed' else 'no'} boundary (--edge {scores.edge}).",
    ]  # fmt: skip
    if scores.named_by:
        names = ", ".join(f"{label} {name}" for label, name in scores.classes.items())
        lines += ["", f"Structures: {names} (named by {scores.named_by})."]
    if scores.ignored:
        labels = ", ".join(f"{label} (in {count} files)" for label, count in scores.ignored.items())
        lines += ["", f"Labels that no structure was named for count as background: {labels}."]
    lines += [line for note in scores.notes for line in ("", f"{note}.")]
    if scores.problems:
        lines += ["", f"## {len(scores.problems)} problem(s): not in these numbers", ""]
        lines += [f"- {problem}" for problem in (fold(scores.problems) if short else scores.problems)]
    return "\n".join(lines) + "\n"


def _mean_sd(row: Mapping[Any, Any]) -> str:
    if not np.isfinite(row["mean"]):
        return "∞"
    digits = 3 if row["unit"] == "1" else 2
    spread = "" if np.isnan(row["sd"]) else f" ± {row['sd']:.{digits}f}"
    return f"{row['mean']:.{digits}f}{spread}"


def write_scores(scores: Scores, output: str | Path, predictions: str | Path, truth: str | Path) -> list[Path]:
    """Write `per_case.csv`, `summary.csv` and `summary.md` into a folder, each atomically; returns their paths."""
    folder = Path(output)
    paths = [folder / name for name in ("per_case.csv", "summary.csv", "summary.md")]
    for path, table in zip(paths, (scores.per_case, summarise(scores)), strict=False):
        with atomic(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    write_text(paths[2], summary_markdown(scores, predictions, truth))
    return paths
