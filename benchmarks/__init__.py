"""Benchmarks: the same weights and the same prompts through `icl_eval` and through what people use otherwise.

Run `python -m benchmarks --help` from the repository's root. To trust the numbers, read in this order:

    workloads   what is asked
    systems     what answers
    rounds      how an answer is timed
    floor       the least time that the arithmetic and the memory of this machine allow
    machine     what the numbers were measured on, and who else was using it
    tables      how they are written down
"""
