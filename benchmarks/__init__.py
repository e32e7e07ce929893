"""Benchmark `icl_eval` against the usual alternatives, with the same weights and the same prompts.

Run `python -m benchmarks --help` from the repository's root. To check the numbers, read the modules in this order:

    workloads   the prompts
    systems     the programs that complete them
    rounds      how they are timed
    floor       the minimum time that this machine's arithmetic and memory allow
    machine     the machine, and its load from other processes
    tables      the results as Markdown
"""
