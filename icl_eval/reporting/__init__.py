"""Output for people: tables on the terminal, and HTML pages.

What people look at, and what it takes to show it:

    terminal  the tables of a run and of the cells of a sweep
    tables    the tables of analyses and comparisons
    remarks   warnings below the scores
    progress  progress bars
    output    a standard output that is closed
    pages     HTML pages
"""
