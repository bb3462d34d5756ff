"""The usual names of the columns of score tables, and the range and direction of a score as far as they are known."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shapeloss.metrics import METRICS

CASE_COLUMNS = ("case", "id", "subject", "patient", "image", "filename", "caseid", "subjectid", "patientid", "imageid")
"""What the column of cases is called, as :func:`plain` writes it."""
METHOD_COLUMNS = ("loss", "method", "model", "algorithm", "network")
"""Columns that may tell methods apart within one file; the first that a file has does."""
STRUCTURE_COLUMNS = ("structure", "label", "class", "organ", "roi")
"""What the column of structures is called; the first is one in any case, the others where they tell rows apart."""
SCORES = dict.fromkeys(
    ["iou", "precision", "recall", "sensitivity", "specificity", "nsd", "surfacedice"], "higher"
) | dict.fromkeys(["hd", "hd95", "assd", "asd", "msd", "masd"], "lower")
"""Scores whose exact definition a table does not tell, and which direction is better: shares of 1, and distances."""

_USUAL = dict.fromkeys(
    ["dsc", "dicescore", "dicecoefficient", "dicesimilaritycoefficient", "meandice", "dicemean", "globaldice"], "dice"
) | {
    "boundarydice": "boundary_dice_in_plane", "jaccard": "iou", "jaccardindex": "iou",
    "hd95mm": "hd95", "hausdorff95": "hd95", "95hd": "hd95", "hausdorff": "hd", "hausdorffdistance": "hd",
    "normalisedsurfacedice": "nsd", "normalizedsurfacedice": "nsd", "assdmm": "assd", "asdmm": "asd",
}  # fmt: skip


def plain(column: str) -> str:
    """Its letters and digits in lower case.

    >>> plain("HD 95")
    'hd95'
    """
    return re.sub(r"[^a-z0-9%.]", "", column.lower())


_USUAL |= {name: name for name in SCORES} | {plain(metric): metric for metric in METRICS}


def known_score(column: str) -> str | None:
    """The score that a column holds by its name; None for any other."""
    return _USUAL.get(plain(column))


def bounds(score: str) -> tuple[float, float]:
    """Least and largest possible value, as far as the score is known."""
    if score in METRICS:
        ends = METRICS[score].range.strip("[]()").replace("−", "-").replace("∞", "inf").replace("D", "inf").split(", ")
        return float(ends[0]), float(ends[1])
    return {"higher": (0.0, 1.0), "lower": (0.0, float("inf"))}.get(
        SCORES.get(score, ""), (-float("inf"), float("inf"))
    )


def unit(score: str) -> str:
    """Of a metric of this project; "1" for any other score, whose table does not tell."""
    return METRICS[score].unit if score in METRICS else "1"


def directions(scores: Sequence[str], higher: Sequence[str] = (), lower: Sequence[str] = ()) -> dict[str, str]:
    """Which direction of each score is better: "higher", "lower", "nearer 0", or "" where that is not known.

    Args:
        scores: those that are compared.
        higher: scores of which more is better, for those that are not known by their name.
        lower: scores of which less is better.

    Raises:
        ValueError: a name that is not compared, one in both lists, or a known score in the wrong one.
    """
    found = {score: METRICS[score].direction if score in METRICS else SCORES.get(score, "") for score in scores}
    given: dict[str, str] = {}
    for direction, names in (("higher", higher), ("lower", lower)):
        for name in names:
            score = name if name in found else known_score(name) or name
            option = f"--{direction}-is-better {name}"
            if score not in found:
                raise ValueError(f"{option}: no such score is compared; there are {', '.join(scores)}")
            if given.get(score, direction) != direction or found[score] not in ("", direction):
                said = found[score] or given[score]
                raise ValueError(f"{option}: contradicts that {said} is better; leave one of the two out")
            given[score] = direction
    return found | given
