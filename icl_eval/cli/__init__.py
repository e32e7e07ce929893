"""Parse the arguments, compose the configuration, run a command, and return an exit code."""
