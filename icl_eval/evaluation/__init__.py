"""A run: from a task's examples to a report."""
