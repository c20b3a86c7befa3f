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
    with pytest.raises(ValueError, match=r"must name genes, got ' \.'"):
        gene_overlap("A", " .", GENES)


def test_a_gene_set_may_hold_genes_that_the_cells_lack() -> None:
    # with gene_sets.only_vocabulary false; right: {A, X1, X2}, named: {A, X2}, and Y1 is not asked
    assert gene_overlap(" X2 Y1 A", " A X1 X2.", GENES) == pytest.approx(2 / 3)


def test_cells_in_the_words_of_cell2sentence_are_read_without_headings_and_full_stops() -> None:
    # right: {A, B, C}; named: {B, D}; words: B, D, D of which all are genes, once a cell
    right = " Cell 1:\nA B.\nCell 2:\nC A.\n."  # the package's form ends so
    answer = "Cell 1:\nB D.\nCell 2:\nD."
    assert gene_overlap(answer, right, GENES) == pytest.approx(1 / 3)
    assert valid_words(answer, GENES) == 1.0


def test_valid_words_count_each_gene_once_a_cell_and_no_headings() -> None:
    # Cell 1: A valid, A repeated, XYZ invented; cell 2: A and B valid -> 3 of 5
    assert valid_words("Cell 1: A A XYZ\nCell 2: A B", GENES) == pytest.approx(3 / 5)
    assert valid_words("", GENES) == 0.0


def test_only_cell_headings_are_taken_off() -> None:
    assert cell_lines("cell 12: A B\n\nGenes: A\nB C") == [" A B", "Genes: A", "B C"]
