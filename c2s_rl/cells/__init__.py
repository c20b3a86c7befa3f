"""Cells as ranked genes: vocabulary, sentences, gene programs. NumPy and numba only."""
