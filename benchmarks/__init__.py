"""Benchmark `icl_eval` against the usual alternatives, with the same weights and the same prompts.

Run `python -m benchmarks --help` from the repository's root. To check the numbers, read the modules in this order:

    workloads   the prompts
    systems     the programs that complete them
    rounds      how they are timed
    floor       the minimum time that this machine's arithmetic and memory allow
    machine     the machine, and its load from other processes
    tables      the results as Markdown

`python -m benchmarks lm_eval` compares this package and `hf` as models of lm-evaluation-harness:

    lm_eval_comparison  the command
    lm_eval_tasks       the tasks, with local data
    lm_eval_requests    one task's requests and one model, in a process of its own

`python -m benchmarks pages` measures how long big pages take to write, to open in a browser and to search:

    pages   the rows, the pages and the measurements

`python -m benchmarks scale` measures what an evaluation costs beside its network, and how that grows:

    scale               the command
    scale_data          a tiny model, and tasks of any size
    scale_stages        one command of `icl-eval` and its stages, in a process of its own

`python -m benchmarks selection` measures what selecting demonstrations from a large pool costs:

    selection           the command, made-up texts and vectors

`python -m benchmarks tokens` counts what likelihoods feed to a network:

    tokens              the command, and the least number of tokens possible
"""
