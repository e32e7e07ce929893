"""Define what a user can configure, and build the objects of a run from it. Hydra is used only here and in `cli`.

What a user can set:

    schema        every key and its type
    setup         where Hydra finds the configs, and the names of run folders

From arguments to a configuration:

    overrides     `key=value` arguments, read exactly as typed
    files         limits on the size of user files
    permissions   what user files may not set
    collisions    files that would silently replace one another
    arguments     all arguments of a command, with these checks
    composing     a configuration, for the command line and for Python
    explaining    Hydra's errors, such as a misspelt key, as one line

From a configuration to objects:

    ranges        options that are read and within their ranges
    sources       the files of the model and of the tasks
    options       the model, which several commands share
    plans         the data, prompts and metrics of one task
    harness_tasks  the tasks of lm-evaluation-harness that one name stands for
    evaluations   the whole evaluation
    given         which options the user gave
    catalogue     the tasks that can be chosen
    identities    the options by which a run is recognized
    free_prompts  prompts without a task, for `stream`, `trace` and `tour`
    metrics       one metric by its name, for `icl_eval.score`
"""
