"""Prompts: wording, placement, model-specific conventions and token ids."""
