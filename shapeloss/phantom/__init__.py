"""Synthetic knees whose boundary is known."""
