"""Checking values and turning them into log1p(CP10k), by hand-made numbers."""

import numpy as np
import pytest

from c2s_rl.cells.vocabulary import Duplicates, GeneCase, build_vocabulary
from c2s_rl.data.h5ad_matrix import CsrChunk
from c2s_rl.data.text_column import HeldNames
from c2s_rl.data.values import ValueChecker, Values, normalise
from c2s_rl.errors import DataError

GENES = ["A", "B", "a"]


def chunk(dense):
    dense = np.asarray(dense, dtype=np.float64)
    rows, columns = np.nonzero(dense)
    indptr = np.cumsum([0, *np.bincount(rows, minlength=len(dense))])
    return CsrChunk(0, indptr, columns.astype(np.int32), dense[rows, columns])


def checker(values, alternatives=()):
    return ValueChecker(
        values,
        place="X of a.h5ad",
        alternatives=alternatives,
        cell_ids=HeldNames(["c0", "c1"]),
        var_names=GENES,
    )


def genes(gene_case=GeneCase.KEEP, duplicates=Duplicates.ERROR):
    return build_vocabulary(GENES, gene_case=gene_case, duplicates=duplicates)


def test_counts_become_log1p_of_ten_thousand():
    result = normalise(chunk([[1, 3, 0], [0, 0, 8]]), Values.COUNTS, genes())
    # 4 counts: 1 -> 2,500 and 3 -> 7,500 of 10,000. A cell of one gene: 10,000.
    np.testing.assert_allclose(result.values, np.log1p([2500, 7500, 10000]), rtol=1e-6)
    assert result.genes.tolist() == [0, 1, 2]
    assert result.indptr.tolist() == [0, 2, 3]


def test_linear_values_are_scaled_like_counts_and_need_not_be_whole():
    stored = chunk([[0.1, 0.3, 0]])
    checker(Values.LINEAR).check(stored)
    result = normalise(stored, Values.LINEAR, genes())
    # of 0.4 in all: 0.1 -> 2,500 and 0.3 -> 7,500 of 10,000
    np.testing.assert_allclose(result.values, np.log1p([2500, 7500]), rtol=1e-6)
    with pytest.raises(DataError, match="must not be negative, got -1 at cell 'c0', gene 'B'"):
        checker(Values.LINEAR).check(chunk([[0.1, -1, 0]]))
    with pytest.raises(DataError, match=r"got 0\.1 .*if TPM or alike, values: linear"):
        checker(Values.COUNTS).check(stored)


def test_log1p_values_stay_as_they_are():
    result = normalise(chunk([[0.5, 0, 2.5]]), Values.LOG1P, genes())
    assert result.values.tolist() == [0.5, 2.5]


def test_columns_of_one_gene_are_summed_before_the_logarithm():
    columns = genes(GeneCase.UPPER, Duplicates.SUM)  # A, B, A
    result = normalise(chunk([[1, 1, 2], [0, 4, 0]]), Values.COUNTS, columns)
    assert result.genes.tolist() == [0, 1, 1]
    np.testing.assert_allclose(result.values, np.log1p([7500, 2500, 10000]), rtol=1e-6)
    # log1p values go back to linear first: log1p(1.71828 + 6.38906) = ln(9.10734) = 2.20908.
    result = normalise(chunk([[1, 0, 2]]), Values.LOG1P, columns)
    np.testing.assert_allclose(result.values, [2.20908], atol=1e-5)


def test_left_out_columns_still_count_for_the_library_size():
    columns = genes(GeneCase.UPPER, Duplicates.FIRST)
    result = normalise(chunk([[1, 1, 2]]), Values.COUNTS, columns)
    assert result.genes.tolist() == [0, 1]
    np.testing.assert_allclose(result.values, np.log1p([2500, 2500]), rtol=1e-6)


def test_log2_values_become_the_height_above_the_lowest_of_the_profile():
    result = normalise(chunk([[3.25, 5.5, 3.25], [4.0, 3.5, 7.0]]), Values.LOG2, genes())
    # Both genes at the floor of the first profile become 0: not expressed, they share a rank.
    assert result.values.tolist() == [0, 2.25, 0, 0.5, 0, 3.5]
    assert result.floors_C.tolist() == [3.25, 3.5]


def test_a_sparse_log2_profile_has_its_floor_at_zero():
    # An entry that is not stored is 0, and no value lies below it.
    result = normalise(chunk([[0, 0, 0], [3.5, 0, 2.5]]), Values.LOG2, genes())
    assert (result.values.tolist(), result.floors_C.tolist()) == ([3.5, 2.5], [0, 0])


def test_the_floor_is_that_of_all_columns_also_of_those_left_out():
    columns = genes().restricted(np.array([1, 2]))
    result = normalise(chunk([[3.25, 5.5, 4.0]]), Values.LOG2, columns)
    assert (result.genes.tolist(), result.values.tolist()) == ([0, 1], [2.25, 0.75])


def test_restricting_the_genes_leaves_the_library_size_alone():
    columns = genes().restricted(np.array([0, 2]))
    assert columns.vocabulary.symbols == ("A", "a")
    result = normalise(chunk([[1, 1, 2]]), Values.COUNTS, columns)
    np.testing.assert_allclose(result.values, np.log1p([2500, 5000]), rtol=1e-6)
    result = normalise(chunk([[0.5, 1.5, 0]]), Values.LOG1P, columns)
    assert (result.genes.tolist(), result.values.tolist()) == ([0], [0.5])


def test_an_empty_cell_stays_empty():
    assert normalise(chunk([[0, 0, 0]]), Values.COUNTS, genes()).values.tolist() == []


@pytest.mark.parametrize("values", Values)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.nan, "expression must be a number, got nan"),
        (np.inf, "expression must be finite, got inf"),
        (-np.inf, "expression must be finite, got -inf"),
        (-0.3, "expression must not be negative, got -0.3"),
    ],
)
def test_what_cannot_be_expression_is_refused_with_its_place(values, bad, message):
    with pytest.raises(DataError, match=f"{message} at cell 'c1', gene 'B' in X of a.h5ad"):
        checker(values).check(chunk([[1, 0, 0], [0, bad, 1]]))


def test_scaled_values_point_to_the_other_matrices():
    message = "looks scaled or centred: .*; this file also has matrix: raw, layer:counts"
    with pytest.raises(DataError, match=message):
        checker(Values.LOG1P, ["raw", "layer:counts"]).check(chunk([[-1.5, 0, 2]]))


def test_counts_must_be_whole():
    message = r"counts must be whole numbers, got 1\.5 at cell 'c0', gene 'a'.*set values: log1p"
    with pytest.raises(DataError, match=message):
        checker(Values.COUNTS).check(chunk([[1, 2, 1.5]]))


def test_log1p_values_must_not_be_counts():
    with pytest.raises(DataError, match=r"log1p values must be below 89, got 120\.5 .*set values"):
        checker(Values.LOG1P).check(chunk([[0.5, 120.5, 0]]))
    whole = checker(Values.LOG1P)
    whole.check(chunk([[1, 2, 0]]))
    whole.check(chunk([[0, 7, 1]]))
    with pytest.raises(DataError, match=r"must not all be whole numbers, .* in X of a\.h5ad"):
        whole.finish()


def test_log2_values_must_be_logarithms_of_intensities():
    with pytest.raises(DataError, match=r"log2 values must be below 64, got 812\.5 .*take log2"):
        checker(Values.LOG2).check(chunk([[5.5, 812.5, 7]]))
    with pytest.raises(DataError, match=r"must not be negative, got -1\.2"):  # level 5 scores
        checker(Values.LOG2).check(chunk([[0.5, -1.2, 7]]))
    rounded = checker(Values.LOG2)  # as in the file that the slinky package shows
    rounded.check(chunk([[3, 4, 5]]))
    rounded.finish()


def test_one_fraction_anywhere_makes_log1p_believable():
    doubtful = checker(Values.LOG1P)
    doubtful.check(chunk([[1, 2, 0]]))
    with pytest.raises(DataError, match="must not all be whole numbers"):
        doubtful.finish()
    doubtful.check(chunk([[0.7, 0, 0]]))
    doubtful.finish()


def test_a_matrix_without_values_contradicts_nothing():
    empty = checker(Values.LOG1P)
    empty.check(chunk([[0, 0, 0]]))
    empty.finish()
    empty.check(chunk([[0, 3, 0]]))
    with pytest.raises(DataError, match="must not all be whole numbers"):
        empty.finish()
