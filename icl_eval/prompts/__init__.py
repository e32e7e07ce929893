"""What a model is given: wording, placement, the model's own conventions, token ids."""
