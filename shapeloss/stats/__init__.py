"""Paired tests of losses, and their tables."""

from shapeloss._extras import require

require("review", "pandas")
