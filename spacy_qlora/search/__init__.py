"""Hyper-parameter search: many runs of the engine's loop, and the config of the best. Needs the extra `search`."""

# What a search leaves, besides its study; a report reads some of it, without optuna.
BEST, TRIALS, FIGURES = "best.cfg", "trials.csv", "search.json"
HISTORY, IMPORTANCE = "history.svg", "importance.svg"
