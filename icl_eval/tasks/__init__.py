"""Tasks: reading rows of data and mapping them to examples.

From files to tasks:

    files           rows of JSON Lines, CSV and Parquet files
    rows            rows of a source: a file or a data set
    examples        rows as examples
    loading         both splits of examples as a task
    kept_tasks      tasks that the cells of a sweep have in common
    sandbox         limits on the Jinja code that maps and renders them
    missing_values  expressions that fail on nulls
"""
