"""MTX folders that contradict themselves, through the command line."""

import gzip

import pytest

from tests import format_files as files

COUNTS = [[3, 0, 1, 2], [0, 5, 0, 1], [4, 1, 0, 0]]
GENES = ["ISG15", "IFI6", "CD3D", "HLA-A"]
MTX = "%%MatrixMarket matrix coordinate integer general\n%\n4 3 3\n1 1 3\n2 2 5\n4 1 2\n"
# What is changed in the matrix, what the line says.
BAD_MTX = {
    "feature out of range": ("4 1 2", "5 1 2", ("in 1..4, got 5 at line 6",)),
    "cell from 0": ("4 1 2", "4 0 2", ("in 1..3, got 0 at line 6",)),
    "fewer entries than claimed": ("4 3 3", "4 3 4", ("the 4 entries", "got 3")),
    "more entries than claimed": ("4 3 3", "4 3 2", ("the 2 entries", "got more")),
    "another number of cells": ("4 3 3", "4 2 3", ("(4, 2)", "3 barcodes")),
    "turned": ("4 3 3", "3 4 3", ("it is turned",)),
    "text": ("2 2 5", "2 2 high", ("'high'", "line 5")),
    "a field too few": ("2 2 5", "2 2", ("got 2 fields", "line 5")),
    "a pattern": ("integer", "pattern", ("must start with", "pattern")),
    "no sizes": ("4 3 3", "4 3", ("features, cells and entries", "line 3")),
    "an entry twice": ("2 2 5", "1 1 5", ("each gene once", "row 0")),
    "a claim beyond its bytes": ("4 3 3", "4 3 250000000", ("250000000 in 83 bytes",)),
}


@pytest.mark.parametrize("case", BAD_MTX)
def test_a_matrix_that_contradicts_its_header(case, tmp_path, assert_refused):
    old, new, words = BAD_MTX[case]
    path = files.write_mtx(files.make_adata(COUNTS, GENES), tmp_path, is_gzip=False)
    (path / "matrix.mtx").write_text(MTX.replace(old, new, 1))
    assert_refused(path, *words, "matrix.mtx")


def test_a_compressed_matrix_that_claims_more_than_deflate_can_hold(tmp_path, assert_refused):
    path = files.write_mtx(files.make_adata(COUNTS, GENES), tmp_path)
    text = MTX.replace("4 3 3", "4 3 250000000") + "1 1 1\n" * 1_000
    (path / "matrix.mtx.gz").write_bytes(gzip.compress(text.encode()))
    assert_refused(path, "250000000 in", "matrix.mtx.gz")


@pytest.mark.parametrize("name", ["barcodes.tsv", "features.tsv", "matrix.mtx"])
def test_a_missing_part_of_an_mtx_folder(name, tmp_path, assert_refused):
    path = files.write_mtx(files.make_adata(COUNTS, GENES), tmp_path)
    (path / f"{name}.gz").unlink()
    assert_refused(path, name, "mtx", format="10x_mtx")
