"""lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).

Its own names are used for what is its own: a task of the harness has documents, a number of shots and filters.

    installation  whether it is installed
"""
