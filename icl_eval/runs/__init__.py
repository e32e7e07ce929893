"""Write and read the files in a run's folder."""
