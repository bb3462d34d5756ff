"""Folders of tens of thousands of volumes, predicted and scored in shards (docs/population.md)."""
