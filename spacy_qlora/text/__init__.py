"""Between spaCy tokens and model pieces: tokens, alignment, windows, BIO tags."""
