"""For teaching: predictions that can be spoiled, what a loss asks of each voxel, and exercises that check themselves.

The notebooks in `notebooks/workshop` are built on it; `docs/workshop.md` is the teacher's page.
"""

from shapeloss.workshop.checks import Result, check
from shapeloss.workshop.own_loss import find_faults, register, train_beside
from shapeloss.workshop.predictions import Pull, alter_labels, label_logits, measure_pull, practice_knee

__all__ = [
    "Pull",
    "Result",
    "alter_labels",
    "check",
    "find_faults",
    "label_logits",
    "measure_pull",
    "practice_knee",
    "register",
    "train_beside",
]
