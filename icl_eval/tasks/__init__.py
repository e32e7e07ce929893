"""Tasks: reading rows of data and mapping them to examples."""
