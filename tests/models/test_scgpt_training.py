"""What the training hides and what it takes for right, by hand."""

import pytest
import torch

from c2s_rl.models.scgpt_config import EmbedderConfig
from c2s_rl.models.scgpt_files import ScGPTArgs
from c2s_rl.models.scgpt_tokens import CellTokens
from c2s_rl.models.scgpt_training import Masker, train_scgpt
from tests.models.scgpt_folders import ARGS, TOKENS, int32

PAD, CLS = TOKENS["<pad>"], TOKENS["<cls>"]


@pytest.fixture
def masker():
    return Masker(ScGPTArgs.model_validate(ARGS), TOKENS)


@pytest.fixture
def batch(masker):
    """Two cells of three genes and of one."""
    return masker.filled(
        [CellTokens(int32(4, 5, 6), int32(50, 25, 1)), CellTokens(int32(7), int32(50))]
    )


def test_short_cells_are_filled_up(batch):
    assert batch.genes_B_T.tolist() == [[4, 5, 6], [7, PAD, PAD]]
    assert batch.bins_B_T.tolist() == [[50, 25, 1], [50, 0, 0]]


def test_masked_values_and_padding_have_the_values_of_the_package(masker, batch):
    masked = masker.hide(batch, 1.0, None)
    assert masked.src_B_L.tolist() == [[CLS, 4, 5, 6], [CLS, 7, PAD, PAD]]
    # -2 for <cls> and padding, -1 for what is to be guessed
    assert masked.values_B_L.tolist() == [[-2, -1, -1, -1], [-2, -1, -2, -2]]
    assert masked.is_padding_B_L.tolist() == [[False] * 4, [False, False, True, True]]
    assert masked.is_masked_B_T.tolist() == [[True] * 3, [True, False, False]]
    assert masker.hide(batch, 0.0, None).values_B_L.tolist() == [[-2, 50, 25, 1], [-2, 50, -2, -2]]


def test_a_part_of_a_cell_keeps_bins_with_their_genes(masker, batch):
    torch.manual_seed(0)
    part = masker.part(batch, 2 / 3)
    pairs = set(zip(part.genes_B_T[0].tolist(), part.bins_B_T[0].tolist(), strict=True))
    assert len(pairs) == 2
    assert pairs < {(4, 50.0), (5, 25.0), (6, 1.0)}
    assert part.genes_B_T[1].tolist() == [7, PAD]  # genes before padding


def test_a_model_learns_what_the_bins_follow_from():
    # Every gene of a cell is high, or every one low.
    high, low = (CellTokens(int32(*range(10)), int32(*[value] * 10)) for value in (45, 5))
    cells = [high, low] * 32
    config = EmbedderConfig(
        embsize=32, nheads=2, d_hid=16, nlayers=1, num_steps=120, batch_size=32, lr=2e-3,
        dropout=0.0, min_share=1.0,
    )  # fmt: skip
    shape = {"embsize": 32, "nheads": 2, "d_hid": 16, "nlayers": 1, "dropout": 0.0}
    args = ScGPTArgs.model_validate(ARGS | shape)
    before = torch.random.get_rng_state()
    found = train_scgpt(cells, cells[:8], args, TOKENS, config, lambda *_: None).held_out
    assert torch.equal(torch.random.get_rng_state(), before)
    # (45 - 25)^2: gene by gene nothing is known; the other genes of the cell tell all.
    assert (found.mean_bin, found.gene_mean) == (400.0, 400.0)
    assert found.model < 40
    assert found.from_cls < 40
