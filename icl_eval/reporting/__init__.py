"""Output for people: tables on the terminal, and HTML pages.

What people look at, and what it takes to show it:

    terminal          the tables of a run and of the cells of a sweep
    sweep_tables      the tables of a sweep's analyses
    comparison_table  the table of a comparison
    columns           what these tables have in common
    remarks           warnings below the scores
    progress          progress bars
    output            a standard output that is closed
    pages             HTML pages
"""
