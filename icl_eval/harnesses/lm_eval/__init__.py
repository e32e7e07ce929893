"""lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).

Its own names are used for what is its own: a task of the harness has documents, a number of shots and filters.

    installation    whether it is installed
    documents       how records and reports name its documents, targets, metrics and filters

Its result files as runs:

    logged_runs     finding and reading the files
    logged_answers  documents as records
    logged_metrics  values as measurements
    importing       both as a run folder
"""
