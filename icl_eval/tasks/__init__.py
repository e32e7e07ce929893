"""Tasks: rows of data, and the examples that they become."""
