"""The command line: from words to a composed configuration, a command and an exit code."""
