"""How many tokens the genes in a text take: counted word by word against the vocabulary."""

from collections.abc import Sequence

from c2s_rl.data.token_samples import SampleEncoder


class GeneTokenCounter:
    """Tokens of every gene of a vocabulary, each with the space before it."""

    def __init__(self, encoder: SampleEncoder, symbols: Sequence[str]) -> None:
        ids = encoder.token_ids([f" {symbol}" for symbol in symbols])
        self._num_tokens = dict(zip(symbols, map(len, ids), strict=True))

    def count(self, text: str) -> list[int]:
        """Tokens of each word of a text that is a gene, in order."""
        known = self._num_tokens
        return [known[word] for word in text.split() if word in known]
