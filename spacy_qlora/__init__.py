"""Clinical entity extraction in spaCy with a 4-bit Mistral and LoRA adapters."""

__version__ = "0.1.0"
