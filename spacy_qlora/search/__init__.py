"""Hyper-parameter search: many runs of the engine's loop, and the config of the best. Needs the extra `search`."""
