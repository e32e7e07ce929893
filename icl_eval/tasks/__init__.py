"""Tasks: reading rows of data and mapping them to examples.

From files to examples:

    rows            rows of files and hub data sets
    examples        rows as examples of a task
    sandbox         limits on the Jinja code that maps and renders them
    missing_values  expressions that fail on nulls
"""
