"""Volumes and data sets on disk."""

from shapeloss._extras import require

require("io", "nibabel", "SimpleITK", "safetensors", "pydantic")
