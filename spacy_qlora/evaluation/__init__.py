"""Entity scores and their tables."""
