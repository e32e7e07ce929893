"""Configuration: what a user can set, and the objects that it becomes. Hydra ends here."""
