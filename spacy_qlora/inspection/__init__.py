"""What `spacy qlora inspect` shows of a base: tables, a JSON file, a plot."""
