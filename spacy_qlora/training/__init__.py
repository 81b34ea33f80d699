"""From a spaCy config to a trained pipeline, by the engine's own loop."""
