"""Runs: the files of a run's folder, and how they are written and read."""
