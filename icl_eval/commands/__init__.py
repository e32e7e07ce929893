"""The commands of the command line.

A module or a package for each:

    evaluate        `icl-eval`: a run and its page
    preview         `icl-eval preview`: prompts without weights
    stream          `icl-eval stream`: completions of free prompts
    trace           `icl-eval trace`: everything that happens to one prompt
    tour            `icl-eval tour`: ways of generating, and their cost
    doctor          `icl-eval doctor`: the same tokens, however a model is run
    compare         `icl-eval compare`: differences between runs
    plan            `icl-eval plan`: how many draws and questions a study needs
    list_runs       `icl-eval list`: a table of runs
    list_tasks      `icl-eval list tasks`: a table of tasks
    import_results  `icl-eval import`: runs from the result files of lm-evaluation-harness
    export          `icl-eval export`: figures and tables for a paper
    lm_eval         `icl-eval lm-eval`: lm-evaluation-harness with this package as a model

What they share:

    result_files    where results are written, so that nothing else is overwritten
"""
