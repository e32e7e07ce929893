"""lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).

installation  whether it is installed
"""
