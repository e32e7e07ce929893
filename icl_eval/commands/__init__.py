"""What the first word of the command line can be, besides an evaluation."""
