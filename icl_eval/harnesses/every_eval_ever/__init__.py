"""Every Eval Ever (https://github.com/evaleval/every_eval_ever), version 0.3.0: a shared schema of evaluation results.

A run is a log with its results, and a file with one row for each question and metric:

    logs     the log, and the paths of both files
    results  the results in a log: metric, score, uncertainty, data and options
    rows     the rows of questions
"""
