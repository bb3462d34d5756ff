"""Every figure."""

from shapeloss._extras import require

require("review", "matplotlib", "pandas")
