"""For reviewers: score folders, compare tables, audit reported numbers."""
