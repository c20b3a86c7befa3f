"""10x files and folders against scanpy's readers; what is left out is counted."""

import gzip

import h5py
import numpy as np
import pytest
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.data import mtx_io
from c2s_rl.data.mtx_io import find_mtx_files
from c2s_rl.data.source import SourceConfig, hash_source, open_source
from c2s_rl.errors import MissingFileError
from tests import format_files as files

HEADER = "%%MatrixMarket matrix coordinate real general\n%\n"


def read(path, scratch, **options):
    """Names, ids, cells, dense counts and what was left out."""
    with open_source(SourceConfig(path=str(path), **options), scratch) as cells:
        dense = np.zeros(cells.matrix.shape)
        for chunk in cells.chunks(7):
            for row in range(len(chunk.indptr) - 1):
                entries = slice(chunk.indptr[row], chunk.indptr[row + 1])
                dense[chunk.start + row, chunk.columns[entries]] = chunk.values[entries]
        ids = cells.cell_ids.read(0, len(cells.cell_ids)).tolist()
        return cells.var_names, cells.gene_ids, ids, dense, dict(cells.num_left_out)


def assert_same_cells(found, adata):
    names, gene_ids, cells, dense, _ = found
    assert list(names) == list(adata.var_names)
    assert list(gene_ids) == list(adata.var["gene_ids"])
    assert cells == list(adata.obs_names)
    np.testing.assert_array_equal(dense, adata.X.toarray())


def test_h5_is_read_as_scanpy_does_without_antibodies(tmp_path):
    path = files.write_tenx_h5(files.make_adata(), tmp_path, others=3)
    found = read(path, tmp_path)
    assert_same_cells(found, sc.read_10x_h5(path))
    assert found[-1] == {"Antibody Capture features": 3}


def test_h5_of_version_2_is_read_as_scanpy_does_by_genome(tmp_path):
    path = files.write_old_tenx_h5(files.make_adata(), tmp_path, ("hg19", "mm10"))
    assert_same_cells(read(path, tmp_path, genome="mm10"), sc.read_10x_h5(path, genome="mm10"))


def test_one_genome_of_two_is_kept_and_the_other_counted(tmp_path):
    path = files.write_tenx_h5(files.make_adata(), tmp_path)
    with h5py.File(path, "r+") as file:
        file["matrix/features/genome"][:5] = b"mm10"
    found = read(path, tmp_path, genome="GRCh38")
    assert_same_cells(found, sc.read_10x_h5(path, genome="GRCh38"))
    assert found[-1] == {"genes of other genomes": 5}


@pytest.mark.parametrize("is_old", [False, True])
def test_mtx_folders_are_read_as_scanpy_does(tmp_path, is_old):
    path = files.write_mtx(files.make_adata(), tmp_path, is_old=is_old, is_gzip=not is_old)
    assert_same_cells(read(path, tmp_path), sc.read_10x_mtx(path))


def test_other_features_of_an_mtx_folder_are_left_out(tmp_path):
    path = files.write_mtx(files.make_adata(), tmp_path)
    text = gzip.decompress((path / "features.tsv.gz").read_bytes()).decode()
    text = text.replace("Gene Expression", "CRISPR Guide Capture", 2)
    (path / "features.tsv.gz").write_bytes(gzip.compress(text.encode()))
    found = read(path, tmp_path)
    assert_same_cells(found, sc.read_10x_mtx(path))
    assert found[-1] == {"CRISPR Guide Capture features": 2}


def test_files_of_one_prefix_are_found_by_their_matrix(tmp_path):
    path = files.write_mtx(files.make_adata(), tmp_path)
    for file in list(path.iterdir()):
        file.rename(path / f"GSM1_{file.name}")
    found = find_mtx_files(path / "GSM1_matrix.mtx.gz")
    assert found.barcodes.name == "GSM1_barcodes.tsv.gz"
    assert len(read(path / "GSM1_matrix.mtx.gz", tmp_path)[2]) == 40
    with pytest.raises(MissingFileError, match=r"must be named <prefix>matrix\.mtx, got"):
        find_mtx_files(path / "GSM1_barcodes.tsv.gz")


def write_entries(folder, text, *, num_cells=3, num_genes=4):
    path = folder / "mtx"
    path.mkdir(exist_ok=True)
    (path / "barcodes.tsv").write_text("".join(f"c{i}\n" for i in range(num_cells)))
    (path / "genes.tsv").write_text("".join(f"E{i}\tG{i}\n" for i in range(num_genes)))
    (path / "matrix.mtx").write_text(text)
    return path


def test_any_white_space_may_part_the_numbers(tmp_path):
    text = f"{HEADER}4 3 3\n\n  1\t1  3\n2 2 5.5 \n4 \t 3 1e2"
    dense = read(write_entries(tmp_path, text), tmp_path)[3]
    np.testing.assert_array_equal(dense, [[3, 0, 0, 0], [0, 5.5, 0, 0], [0, 0, 0, 100]])


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(12, 60), st.booleans())
def test_entries_may_stand_in_any_order_and_be_read_in_any_blocks(
    tmp_path_factory, seed, block, is_sorted
):
    generator = np.random.default_rng(seed)
    expected = generator.poisson(0.6, size=(5, 4))
    cells, genes = np.nonzero(expected)
    order = np.arange(len(cells)) if is_sorted else generator.permutation(len(cells))
    lines = [f"{genes[i] + 1} {cells[i] + 1} {expected[cells[i], genes[i]]}" for i in order]
    text = "\n".join([f"{HEADER}4 5 {len(lines)}", *lines]) + "\n"
    folder = tmp_path_factory.mktemp("mtx")
    path = write_entries(folder, text, num_cells=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mtx_io, "BLOCK_BYTES", block)
        patch.setattr("c2s_rl.data.spool.ENTRIES_PER_PASS", 3)
        dense = read(path, folder / "scratch")[3]
    np.testing.assert_array_equal(dense, expected)


def test_a_folder_is_parsed_once(tmp_path):
    path = files.write_mtx(files.make_adata(), tmp_path)
    scratch = tmp_path / "scratch"
    first = read(path, scratch)
    made = {file: file.stat().st_mtime_ns for file in scratch.rglob("*")}
    assert read(path, scratch)[2] == first[2]
    assert {file: file.stat().st_mtime_ns for file in scratch.rglob("*")} == made


def test_the_hash_of_a_folder_is_that_of_its_three_files(tmp_path):
    path = files.write_mtx(files.make_adata(), tmp_path)
    config = SourceConfig(path=str(path))
    before = hash_source(config)
    (path / "notes.txt").write_text("of no concern")
    assert hash_source(config) == before
    (path / "barcodes.tsv.gz").write_bytes(gzip.compress(b"x\n"))
    assert hash_source(config) != before
