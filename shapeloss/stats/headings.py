"""Headings of the metrics that the paper reports."""

from __future__ import annotations

PAPER_METRICS = {"boundary_dice_in_plane": "Boundary Dice", "dice": "Global Dice"}
"""Score columns of the results table and their headings."""
