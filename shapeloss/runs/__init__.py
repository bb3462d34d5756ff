"""Trainings on disk: data sets, caches, checkpoints, predictions, provenance."""
