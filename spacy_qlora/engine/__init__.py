"""Pieces in, tag scores out: the 4-bit base, its adapters and the training loop. Imports no spaCy."""
