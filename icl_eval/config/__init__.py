"""Configuration: what a user can set, and the objects built from it. No other package but `cli` knows Hydra."""
