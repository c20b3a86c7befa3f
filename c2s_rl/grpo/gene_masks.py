"""The gene trie's masks of a batch of completions, recomputed from their tokens.

Shape suffixes: B rows, T completion tokens, U columns that may ever be allowed.
"""

from collections.abc import Sequence

import numpy as np
import torch

from c2s_rl.decoding.gene_trie import GeneTrie


def allowed_columns(
    trie: GeneTrie, completions: Sequence[Sequence[int]], *, max_tokens: int
) -> torch.Tensor:
    """Replay right-padded completions.

    Args:
        trie: The one that they were sampled with.
        completions: [B] token ids of each, without padding.
        max_tokens: Their token budget.

    Returns:
        [B, T, U] bool: `trie.columns_U[u]` might have been token t of row b. Padding holds True, so
        that the log-probabilities there, which weigh nothing, stay finite.

    Raises:
        DataError: If a completion holds a token that the trie forbids.
    """
    num_tokens = max(map(len, completions))
    num_columns = len(trie.columns_U)
    allowed = np.ones((len(completions), num_tokens, num_columns), dtype=np.bool_)
    for row, tokens in enumerate(completions):
        bits = trie.replay(tokens, max_tokens=max_tokens)
        allowed[row, : len(tokens)] = np.unpackbits(
            bits, axis=1, count=num_columns, bitorder="little"
        )
    return torch.from_numpy(allowed)
