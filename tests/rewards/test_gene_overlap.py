"""Gene overlap, by hand."""

import pytest

from c2s_rl.errors import ConfigError
from rewards import load_reward
from tests.reference_cells import make_batch, make_group, make_material, make_record

MATERIAL = make_material({"a": [[0]]})


def scores(cells, target, num_genes=4):
    batch = make_batch(MATERIAL, make_group(cells, make_record("a", target=target)))
    return load_reward("gene_overlap", {"num_genes": num_genes}).score(batch).scores


def test_overlap_is_the_share_of_the_targets_genes_in_any_order():
    assert scores([[3, 2, 1, 0], [0, 5, 1, 6], [7], []], (0, 1, 2, 3)) == (1.0, 0.5, 0.0, 0.0)


def test_both_sides_are_cut_so_that_length_earns_nothing():
    # of the target's first 2 genes (0, 1) the answer's first 2 (5, 0) hold one
    assert scores([[5, 0, 1, 2, 3]], (0, 1, 2, 3), num_genes=2) == (0.5,)
    # a target shorter than the cut is the whole reference
    assert scores([[0, 1, 5, 6]], (0, 1)) == (1.0,)


def test_a_target_without_genes_abstains():
    assert scores([[0], []], ()) == (None, None)


def test_the_length_must_be_given():
    with pytest.raises(ConfigError, match="got no 'num_genes'"):
        load_reward("gene_overlap", {})
