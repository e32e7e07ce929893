"""Run a model on tasks, from their examples to a report."""
