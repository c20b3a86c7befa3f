import pytest

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.task_metrics import cell_lines, gene_overlap, valid_words

GENES = Vocabulary(symbols=("A", "B", "C", "D"), original=("A", "B", "C", "D"))


def test_overlap_is_the_share_of_the_right_genes_whatever_their_order() -> None:
    # 2 of A, B, C are named; D is not asked for, a repeat and an invented word earn nothing.
    assert gene_overlap(" C A D A XYZ", " A B C", GENES) == pytest.approx(2 / 3)
    assert gene_overlap("", "A B", GENES) == 0.0


def test_genes_of_several_cells_count_together() -> None:
    # right: {A, B, D}; named: {B, D}
    right = " Cell 1: A B\nCell 2: A D"
    assert gene_overlap("Cell 1: D\nCell 2: B C", right, GENES) == pytest.approx(2 / 3)


def test_a_right_answer_without_genes_is_refused() -> None:
    with pytest.raises(ValueError, match="must name genes, got 'nothing'"):
        gene_overlap("A", "nothing", GENES)


def test_valid_words_count_each_gene_once_a_cell_and_no_headings() -> None:
    # Cell 1: A valid, A repeated, XYZ invented; cell 2: A and B valid -> 3 of 5
    assert valid_words("Cell 1: A A XYZ\nCell 2: A B", GENES) == pytest.approx(3 / 5)
    assert valid_words("", GENES) == 0.0


def test_only_cell_headings_are_taken_off() -> None:
    assert cell_lines("cell 12: A B\n\nGenes: A\nB C") == [" A B", "Genes: A", "B C"]
