"""Write and read the files in a run's folder.

What one run leaves:

    records     the lines of `samples_TASK.jsonl`, one per question, which a killed run resumes from
    reports     `report.json` and its schema
    behaviour   the part of a report about copying from demonstrations
    counts      the part of a report about tokens and about how completions ended
    provenance  `fingerprint.json`, and what a run depends on
    choices     how files name the choices of a configuration
    migration   files of earlier versions
    writing     atomic writes, shared by all of these

Reading many runs:

    folders     find, read and lock the folders of runs
    options     the options in which runs differ
    cells       the runs of a sweep
    attempts    which of them are being computed, and which have died
    frames      runs as pandas data frames
"""
