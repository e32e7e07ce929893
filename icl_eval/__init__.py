"""Measure how well a language model learns a task from demonstrations in its prompt."""

__version__ = "0.1.0"
