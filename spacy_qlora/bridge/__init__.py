"""The adapted base as the transformer of spacy-transformers, for spaCy's own components to listen to."""
