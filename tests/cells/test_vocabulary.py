"""The vocabulary: which columns become genes, and which names are refused."""

import pickle

import pytest

from c2s_rl.cells.vocabulary import Duplicates, GeneCase, Vocabulary, build_vocabulary
from c2s_rl.errors import DataError


def build(names, gene_case=GeneCase.KEEP, duplicates=Duplicates.ERROR):
    return build_vocabulary(names, gene_case=gene_case, duplicates=duplicates)


def test_symbols_keep_their_case():
    columns = build(["Actb", "Gapdh"])
    assert columns.vocabulary.symbols == ("Actb", "Gapdh")
    assert columns.gene_of_column.tolist() == [0, 1]


def test_upper_case_keeps_the_way_back():
    vocabulary = build(["Actb", "C1orf43"], GeneCase.UPPER).vocabulary
    assert vocabulary.symbols == ("ACTB", "C1ORF43")
    assert vocabulary.original == ("Actb", "C1orf43")


def test_symbols_that_differ_by_case_are_two_genes_when_case_is_kept():
    assert len(build(["Actb", "ACTB"]).vocabulary) == 2


def test_repeated_symbols_are_refused_by_name():
    with pytest.raises(DataError, match=r"must be unique, got 1 repeated \('B'\) in var_names"):
        build(["A", "B", "B"])


def test_symbols_that_collide_in_upper_case_are_refused():
    with pytest.raises(DataError, match=r"must be unique in upper case, got 1 repeated \('ACTB'\)"):
        build(["Actb", "ACTB"], GeneCase.UPPER)


def test_sum_maps_every_column_of_a_symbol_to_its_gene():
    columns = build(["A", "B", "A", "C", "B"], duplicates=Duplicates.SUM)
    assert columns.vocabulary.symbols == ("A", "B", "C")
    assert columns.gene_of_column.tolist() == [0, 1, 0, 2, 1]
    assert columns.num_duplicate_columns == 2


def test_first_leaves_later_columns_of_a_symbol_out():
    columns = build(["A", "B", "A", "C", "B"], duplicates=Duplicates.FIRST)
    assert columns.gene_of_column.tolist() == [0, 1, -1, 2, -1]
    assert columns.num_duplicate_columns == 2


@pytest.mark.parametrize("name", ["HLA A", " CD3D", "CD3D\t", ""])
def test_a_symbol_must_be_one_word(name):
    with pytest.raises(DataError, match="must be one word without spaces"):
        build(["A", name])


def test_ensembl_ids_ask_for_a_symbol_column():
    with pytest.raises(DataError, match=r"got Ensembl ids \('ENSG00000187608.10'.*symbol_column"):
        build(["ENSG00000187608.10", "ENSMUSG00000035692", "CD3D"])


def test_a_few_ensembl_ids_among_symbols_are_normal():
    assert len(build(["ENSG00000187608", "CD3D", "CD19"]).vocabulary) == 3


def test_a_matrix_without_genes_is_refused():
    with pytest.raises(DataError, match="at least one gene"):
        build([])


def test_unknown_symbols_are_named_with_the_nearest():
    vocabulary = Vocabulary(symbols=("ISG15", "CD3D"), original=("ISG15", "CD3D"))
    assert vocabulary.indices(["CD3D", "ISG15"]).tolist() == [1, 0]
    assert vocabulary.index_of("isg15") is None
    with pytest.raises(DataError, match=r"got 'ISG1S'; did you mean 'ISG15'\?"):
        vocabulary.indices(["CD3D", "ISG1S"])


def test_a_vocabulary_refuses_repeats_and_unequal_spellings():
    with pytest.raises(DataError, match="got 'A' more than once"):
        Vocabulary(symbols=("A", "A"), original=("A", "a"))
    with pytest.raises(DataError, match="got 2 symbols and 1 spellings"):
        Vocabulary(symbols=("A", "B"), original=("A",))


def test_a_vocabulary_survives_pickling():
    vocabulary = pickle.loads(pickle.dumps(build(["A", "B"]).vocabulary))
    assert vocabulary.index_of("B") == 1
