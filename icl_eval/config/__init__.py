"""Define what a user can configure, and build the objects of a run from it. Hydra is used only here and in `cli`."""
