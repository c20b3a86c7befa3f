"""Policies as Hugging Face models: making, loading, scoring."""
