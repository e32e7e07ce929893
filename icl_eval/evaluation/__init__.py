"""Run a model on tasks, from their examples to a report.

In the order of a run:

    preparation  what an evaluation consists of; prompts and everything else that needs no weights
    linting      warnings about prompts and data
    pipeline     the run itself: decode what is missing, score, report
    same_data    whether records that are already there are of the same questions and prompts
    adopting     the records of another cell of a sweep that cannot differ
    answers      log-likelihoods of references and choices
    channel      log-likelihoods of questions after references and choices
    calibration  what is taken off them, so that a bias towards a choice does not count
    running      the engine, opened when the first prompt needs it
    volume       how much a run asks of its engine
    voting       the prediction of a question with several samples
    doses        what the demonstrations of a control still teach, and whether outputs follow them
    results      from records to the parts of a report
    finished     whether a folder holds all of this already
    stopwatch    seconds and tokens per second
"""
