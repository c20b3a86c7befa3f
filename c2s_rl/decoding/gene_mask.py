"""Applying the walks of a batch to its logits.

Shapes: B rows of the batch, V vocabulary, K allowed tokens of all rows together.
"""

from collections.abc import Sequence

import numpy as np
import torch

from c2s_rl.decoding.gene_walk import GeneWalk


def keep_allowed(
    logits_B_V: torch.Tensor, rows: Sequence[int], walks: Sequence[GeneWalk]
) -> torch.Tensor:
    """Set the logits of all tokens that may not come next to minus infinity.

    Few tokens are allowed of many: their logits are picked out, the rows filled, and the picked
    put back, which is quicker than a mask over the vocabulary.

    Args:
        logits_B_V: [B, V] of any strides; changed in place.
        rows: Rows to constrain, each once; other rows stay.
        walks: The walk of each of these rows.

    Returns:
        `logits_B_V`.
    """
    if not rows:
        return logits_B_V
    allowed = [walk.allowed() for walk in walks]
    row_stride, column_stride = logits_B_V.stride()
    starts = np.repeat(np.asarray(rows, dtype=np.int64) * row_stride, [len(a) for a in allowed])
    places_K = torch.from_numpy(np.concatenate(allowed) * column_stride + starts)
    places_K = places_K.to(logits_B_V.device)
    # The whole memory that the rows span: an engine's logits are a slice of padded ones.
    num_rows, num_columns = logits_B_V.shape
    span = (num_rows - 1) * row_stride + (num_columns - 1) * column_stride + 1
    flat = logits_B_V.as_strided((span,), (1,))
    kept_K = flat.index_select(0, places_K)
    if len(rows) == num_rows:
        logits_B_V.fill_(-torch.inf)
    else:
        logits_B_V[torch.as_tensor(rows, device=logits_B_V.device)] = -torch.inf
    flat.scatter_(0, places_K, kept_K)
    return logits_B_V
