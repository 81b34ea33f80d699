"""One HTML page on a pipeline: how well it does, and where it fails."""
