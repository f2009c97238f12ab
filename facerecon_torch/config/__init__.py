"""The typed configuration of a run, built from Hydra's groups."""
