"""Annotated records in, DocBin out."""
