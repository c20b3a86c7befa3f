"""The reward by hand, on one group of two answers."""

import numpy as np
from marker_share import MarkerShare

from c2s_rl.cells.parse import parse_cell
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.types import Completion, Group, PromptRecord, Split, Task
from rewards.base import RewardBatch

SYMBOLS = ("CD3D", "CD3E", "IL7R", "LYZ")
NO_GENES = np.zeros(0, dtype=np.int32)


def test_each_marker_counts_once():
    vocabulary = Vocabulary(SYMBOLS, SYMBOLS)
    texts = (" LYZ CD3D IL7R CD3D", " LYZ")
    record = PromptRecord(
        "p", "?", " !", Task.CELL_GENERATION, "T", "", "", Split.TRAIN, NO_GENES, NO_GENES
    )
    group = Group(
        record,
        (1,),
        tuple(Completion(text, (1,), (0.0,), 0, is_truncated=False) for text in texts),
        tuple(parse_cell(text, vocabulary, is_truncated=False) for text in texts),
    )
    reward = MarkerShare(MarkerShare.Options(markers=("CD3D", "CD3E", "IL7R")))
    result = reward.score(RewardBatch((group,), vocabulary))
    # 2 of the 3 markers, the repeat counted once; none of them
    assert result.scores == (2 / 3, 0.0)
