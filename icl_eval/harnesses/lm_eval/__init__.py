"""lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).

Its own names are used for what is its own: a task of the harness has documents, a number of shots and filters.

    installation    whether it is installed
    documents       how records and reports name its documents, targets and metrics

Its tasks as tasks of this package:

    registry        names, patterns and files, and loading what they stand for
    consent         what a file of the user may contain
    tasks           one task as the parts of a run
    generation_options  when its completions end
    wording         its prompts
    draws           its demonstrations
    encoding        how it splits answers into tokens
    scores          its filters, metrics and aggregations
    groups          several tasks as one score

This package as a model of the harness:

    model           the class that answers its requests
    loading         the model that its arguments name
    likelihoods     requests for likelihoods, as prompts with continuations
    generation      requests for texts: options, and how a text ends

Runs as its result files:

    results         the results file
    samples         the lines of the samples files

Its result files as runs:

    logged_runs     finding and reading the files
    logged_answers  documents as records
    logged_metrics  values as measurements
    importing       all of it as a run folder
    prompt_hashes   its prompts compared with ours, without a model
"""
