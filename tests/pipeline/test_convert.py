"""From .h5ad to cell shards: the whole stage, what it refuses, and what it must not depend on."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from c2s_rl.cells.programs import load_program, program_indices
from c2s_rl.cells.rank_model import RankForm, fit_rank_model
from c2s_rl.cells.sentence import write_sentence
from c2s_rl.config import load_yaml, validate
from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.pipeline.convert import ConvertConfig, run
from tests.conftest import PROJECT

KANG = "${C2S_RL_DATA}/kang/kang_ifnb_2000x13215.h5ad"


def make_adata(counts, names=None, layout=sparse.csr_matrix):
    counts = np.asarray(counts, dtype=np.float32)
    names = names or [f"G{i}" for i in range(counts.shape[1])]
    obs = pd.DataFrame({"kind": ["x"] * len(counts)}, index=[f"c{i}" for i in range(len(counts))])
    return anndata.AnnData(layout(counts), obs=obs, var=pd.DataFrame(index=names))


def convert(adata, tmp_path, chunk_cells=1000, **options):
    """Write, convert and read back: manifest, cells and sentences by cell id."""
    path = tmp_path / "input.h5ad"
    adata.write_h5ad(path)
    config = ConvertConfig(path=str(path), obs=("kind",), **options)
    manifest = run(config, tmp_path / "cells", rows_at_once=chunk_cells)
    cells = read_cells(tmp_path / "cells", ["kind"])
    sentences = {
        cell: write_sentence(cells.genes_of(i), manifest.vocabulary)
        for i, cell in enumerate(cells.cell_ids)
    }
    return manifest, cells, sentences


def random_counts(num_cells=60, num_genes=30):
    return np.random.default_rng(0).poisson(0.8, size=(num_cells, num_genes))


def test_counts_become_ranked_log1p_values(tmp_path):
    adata = make_adata([[1, 3, 0], [0, 2, 8]], ["A", "B", "C"])
    manifest, cells, sentences = convert(adata, tmp_path)
    assert sentences == {"c0": "B A", "c1": "C B"}
    np.testing.assert_allclose(cells.values, np.log1p([7500, 2500, 8000, 2000]), rtol=1e-6)
    assert cells.obs["kind"].tolist() == ["x", "x"]
    assert (manifest.num_cells, manifest.normalisation) == (2, "log1p(CP10k)")
    assert manifest == read_manifest(tmp_path / "cells")


def test_empty_and_small_cells_are_dropped_and_counted(tmp_path):
    adata = make_adata([[1, 3, 2], [0, 0, 0], [0, 2, 0], [4, 0, 1], [0, 0, 0]])
    manifest, cells, _ = convert(adata, tmp_path, min_genes=2)
    assert cells.cell_ids == ("c0", "c3")
    assert cells.source_rows.tolist() == [0, 3]
    assert (manifest.num_dropped_empty, manifest.num_dropped_min_genes) == (2, 1)


def test_explicit_zeros_are_not_expressed(tmp_path):
    adata = make_adata([[1, 3, 2], [5, 1, 4]])
    adata.X.data[[0, 4]] = 0
    manifest, _, sentences = convert(adata, tmp_path)
    assert sentences == {"c0": "G1 G2", "c1": "G0 G2"}
    assert manifest.num_explicit_zeros == 2


def test_max_genes_keeps_the_head_and_counts_the_rest(tmp_path):
    manifest, _, sentences = convert(make_adata([[1, 3, 2], [5, 0, 4]]), tmp_path, max_genes=2)
    assert sentences == {"c0": "G1 G2", "c1": "G0 G2"}
    assert manifest.num_dropped_genes == 1


def test_missing_labels_are_counted(tmp_path):
    adata = make_adata([[1, 3], [2, 1], [0, 1]])
    adata.obs["kind"] = pd.Categorical(["x", None, "y"])
    manifest, cells, _ = convert(adata, tmp_path)
    assert manifest.num_missing_obs == {"kind": 1}
    assert cells.obs["kind"].tolist() == ["x", "", "y"]


def test_upper_case_keeps_the_spelling_of_the_file(tmp_path):
    adata = make_adata([[1, 2]], ["Actb", "Cd3d"])
    manifest, _, sentences = convert(adata, tmp_path, gene_case="upper")
    assert sentences == {"c0": "CD3D ACTB"}
    assert manifest.original == ("Actb", "Cd3d")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_duplicated_symbols_are_summed_when_asked(tmp_path):
    adata = make_adata([[2, 3, 2]], ["A", "B", "A"])
    manifest, _, sentences = convert(adata, tmp_path, duplicates="sum")
    assert sentences == {"c0": "A B"}  # 4 against 3
    assert manifest.sources[0].num_duplicate_columns == 1


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("tie_break", ["hash", "c2s"])
def test_chunk_sizes_and_layouts_give_the_same_bytes(tmp_path, layout, tie_break):
    """The chunk size changes nothing at all; the layout nothing but the hash of the source."""
    counts = random_counts()
    parts, manifests = [], []
    for chunk_cells in (1, 7, 1000):
        folder = tmp_path / str(chunk_cells)
        folder.mkdir()
        convert(make_adata(counts, layout=layout), folder, chunk_cells, tie_break=tie_break)
        parts.append((folder / "cells" / "part-00000.parquet").read_bytes())
        manifest = json.loads((folder / "cells" / "manifest.json").read_text())
        manifests.append(manifest | {"sources": []})
    assert parts[0] == parts[1] == parts[2]
    assert manifests[0] == manifests[1] == manifests[2]
    (tmp_path / "dense").mkdir()
    convert(make_adata(counts, layout=np.asarray), tmp_path / "dense", tie_break=tie_break)
    assert (tmp_path / "dense" / "cells" / "part-00000.parquet").read_bytes() == parts[0]


def test_shuffled_rows_give_the_same_sentence_for_each_cell(tmp_path):
    adata = make_adata(random_counts())
    order = np.random.default_rng(1).permutation(adata.n_obs)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    manifest, _, sentences = convert(adata, tmp_path / "a")
    shuffled_manifest, _, shuffled = convert(adata[order].copy(), tmp_path / "b", chunk_cells=11)
    assert shuffled == sentences
    assert shuffled_manifest.rank_model == manifest.rank_model  # bitwise


def test_the_seed_changes_only_the_order_of_ties(tmp_path):
    adata = make_adata(random_counts())
    _, first, _ = convert(adata, tmp_path, seed=1)
    _, second, _ = convert(adata, tmp_path, seed=2)
    np.testing.assert_array_equal(first.values, second.values)
    assert first.genes.tolist() != second.genes.tolist()


def test_the_rank_model_is_that_of_the_shards(tmp_path):
    manifest, cells, _ = convert(make_adata(random_counts()), tmp_path, rank_form="log_rank")
    refit = fit_rank_model(cells.indptr, cells.values, form=RankForm.LOG_RANK)
    assert manifest.rank_model == refit


@pytest.mark.parametrize(("form", "power"), [(RankForm.LINEAR, 0.0), (RankForm.LOG_RANK, 1.0)])
def test_auto_takes_the_form_that_fits_better(tmp_path, form, power):
    ranks = np.arange(1, 31)
    line = 6 - 0.2 * ranks if power == 0 else 6 - 4 * np.log10(ranks)
    adata = make_adata(np.maximum(np.tile(line, (3, 1)), 0))
    manifest, _, _ = convert(adata, tmp_path, values="log1p")
    assert manifest.rank_model.form is form
    assert manifest.rank_model.r2 > 0.999


def test_only_the_genes_of_programs_are_ranked(tmp_path):
    (tmp_path / "one.gmt").write_text("SET\tmine\tD\tA\n")
    (tmp_path / "two.txt").write_text("RIGI\nA\n")
    adata = make_adata([[1, 3, 0, 4], [5, 1, 1, 1]], ["A", "B", "D", "DDX58"])
    manifest, cells, sentences = convert(
        adata, tmp_path, genes=(f"{tmp_path}/one.gmt:SET", f"{tmp_path}/two.txt")
    )
    # RIGI is written DDX58 in this file; B is left out but counts for the library size.
    assert manifest.symbols == ("A", "D", "DDX58")
    assert sentences["c0"] == "DDX58 A"
    np.testing.assert_allclose(cells.values_of(0), np.log1p([5000, 1250]), rtol=1e-6)


def test_columns_are_joined_without_their_missing_parts(tmp_path):
    adata = make_adata([[1, 2], [2, 1], [1, 1]])
    adata.obs["drug"] = ["DMSO", "dasatinib", None]
    adata.obs["dose"] = [None, "10 um", None]
    path = tmp_path / "input.h5ad"
    adata.write_h5ad(path)
    config = ConvertConfig(path=str(path), obs=("kind",), combine={"treatment": ("drug", "dose")})
    manifest = run(config, tmp_path / "cells")
    assert manifest.obs_columns == ("kind", "treatment")
    assert manifest.num_missing_obs == {"kind": 0, "treatment": 1}
    treatments = read_cells(tmp_path / "cells", ["treatment"]).obs["treatment"]
    assert treatments.tolist() == ["DMSO", "dasatinib 10 um", ""]


# What the stage refuses: counts matrix, gene names, options, message.
BAD = {
    "nan": ([[1, np.nan]], ["A", "B"], {}, "must be a number, got nan at cell 'c0', gene 'B'"),
    "infinite": ([[1, np.inf]], ["A", "B"], {}, "must be finite, got inf"),
    "negative": ([[1, -2]], ["A", "B"], {}, "must not be negative, got -2"),
    "scaled": ([[0.4, -1.2]], ["A", "B"], {"values": "log1p"}, "the matrix looks scaled"),
    "log values as counts": ([[0.7, 1.1]], ["A", "B"], {}, "counts must be whole .*values: log1p"),
    "counts as log values": ([[7, 1]], ["A", "B"], {"values": "log1p"}, "set values: counts"),
    "duplicates": ([[1, 2]], ["A", "A"], {}, r"must be unique, got 1 repeated \('A'\)"),
    "duplicates by case": ([[1, 2]], ["A", "a"], {"gene_case": "upper"}, "unique in upper case"),
    "space": ([[1, 2]], ["A", "HLA A"], {}, "one word without spaces, got 'HLA A'"),
    "ensembl": (
        [[1, 2]],
        ["ENSG00000187608", "ENSG00000157601"],
        {},
        "got Ensembl ids .*symbol_column",
    ),
    "no such layer": ([[1, 2]], ["A", "B"], {"matrix": "layer:raw"}, "one of 'X', got 'layer:raw'"),
    "only empty cells": ([[0, 0]], ["A", "B"], {}, "must keep at least one cell, got none"),
}


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("layout", [sparse.csr_matrix, np.asarray])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(tmp_path, case, layout):
    counts, names, options, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        convert(make_adata(counts, names, layout), tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cells").exists()


def test_repeated_cell_ids_are_refused(tmp_path):
    adata = make_adata([[1, 2], [2, 1], [1, 1]])
    adata.obs_names = ["c0", "c1", "c0"]
    with pytest.raises(DataError, match="cell ids must be unique, got 'c0' more than once"):
        convert(adata, tmp_path)


def test_an_unknown_obs_column_is_refused_with_the_nearest(tmp_path):
    make_adata([[1, 2]]).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match=r"one of 'kind', got 'kin' .*did you mean 'kind'\?"):
        run(ConvertConfig(path=str(tmp_path / "a.h5ad"), obs=("kin",)), tmp_path / "cells")


def test_a_missing_file_or_variable_is_named(tmp_path, monkeypatch):
    with pytest.raises(MissingFileError, match=r"must exist, got none\.h5ad"):
        run(ConvertConfig(path="none.h5ad"), tmp_path / "cells")
    monkeypatch.delenv("C2S_RL_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"got no C2S_RL_DATA for .* or give the path itself"):
        run(ConvertConfig(path=KANG), tmp_path / "cells")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs one of path, scanpy_dataset or files, got none"),
        ({"path": "a", "scanpy_dataset": "pbmc68k_reduced"}, "got path and scanpy_dataset"),
        ({"path": "a", "scanpy_data": "pbmc3k"}, "did you mean 'scanpy_dataset'"),
        ({"scanpy_dataset": "pbmc3k"}, "pbmc68k_reduced"),
        ({"path": "a", "matrix": "counts"}, "matrix must be X, raw or layer:<name>, got 'counts'"),
        ({"path": "a", "obs": ["genes"]}, "got 'genes' at 'obs'"),
        ({"path": "a", "obs": ["x", "x"]}, "names? columns once .*, got 'x'"),
        ({"path": "a", "tie_break": "c2s", "duplicates": "sum"}, "must be error, got sum"),
        ({"path": "a", "min_genes": 0}, "got 0 at 'min_genes'"),
        ({"path": "a", "tie_break": "c2s", "genes": ["x.txt"]}, "genes must be empty, got"),
        ({"path": "a", "values": "log2", "duplicates": "sum"}, "must be error or first, got sum"),
        ({"path": "a.gctx"}, "needs matrix: X and values: log2, got X and counts"),
        (
            {"path": "a.h5ad", "tables": {"genes": "b"}},
            "tables.genes must be one that an h5ad file",
        ),
        ({"path": "a", "obs": ["x"], "combine": {"x": ["y"]}}, "got 'x'"),
        ({"path": "a", "combine": {"z": []}}, r"names of others, got 'z': \[\]"),
    ],
)
def test_contradicting_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        validate(ConvertConfig, options, "test.yaml")


def test_the_cells_that_scanpy_ships_convert(tmp_path):
    config = ConvertConfig(
        scanpy_dataset="pbmc68k_reduced", matrix="raw", values="log1p", obs=("bulk_labels",)
    )
    manifest = run(config, tmp_path / "cells")
    cells = read_cells(tmp_path / "cells", ["bulk_labels"])
    assert (len(cells), len(manifest.symbols), manifest.num_explicit_zeros) == (700, 765, 0)
    # 174,400 stored entries in the file, none of them 0.
    assert len(cells.genes) == 174_400
    assert len(set(cells.obs["bulk_labels"])) == 10
    assert manifest.sources[0].path == "scanpy:pbmc68k_reduced"
    # LYZ is a monocyte gene: among the first 50 words of their sentences and not of B cells'.
    lyz = manifest.vocabulary.index_of("LYZ")
    is_early = np.array([lyz in cells.genes_of(i)[:50] for i in range(700)])
    assert is_early[cells.obs["bulk_labels"] == "CD14+ Monocyte"].mean() > 0.6
    assert is_early[cells.obs["bulk_labels"] == "CD19+ B"].mean() < 0.05


def test_its_scaled_matrix_is_refused_with_the_way_out(tmp_path):
    config = ConvertConfig(scanpy_dataset="pbmc68k_reduced", values="log1p")
    with pytest.raises(DataError, match=r"looks scaled .*also has matrix: raw"):
        run(config, tmp_path / "cells")


@pytest.fixture
def kang(data_dir, monkeypatch):
    monkeypatch.setenv("C2S_RL_DATA", str(data_dir))
    return {"path": KANG, "obs": ("cell_type", "condition")}


def test_kang_counts_give_the_cells_of_its_log_values(kang, tmp_path):
    from_counts = run(ConvertConfig(matrix="layer:counts", **kang), tmp_path / "a")
    from_logs = run(ConvertConfig(values="log1p", **kang), tmp_path / "b")
    counts, logs = read_cells(tmp_path / "a"), read_cells(tmp_path / "b")
    np.testing.assert_array_equal(counts.genes, logs.genes)
    np.testing.assert_allclose(counts.values, logs.values, rtol=1e-5)
    assert (from_counts.num_cells, len(counts.genes)) == (2000, 1_393_284)
    assert from_counts.rank_model.form is RankForm.LOG_RANK
    # Data README: R^2 0.872.
    assert from_counts.rank_model.r2 == pytest.approx(0.872, abs=0.003)
    assert from_logs.rank_model.slope == pytest.approx(from_counts.rank_model.slope, abs=1e-4)


def test_interferon_shows_in_the_sentences_of_kang_monocytes(kang, tmp_path):
    manifest = run(ConvertConfig(matrix="layer:counts", **kang), tmp_path / "cells")
    cells = read_cells(tmp_path / "cells", ["cell_type", "condition"])

    def median_rank(gene, condition):
        index = manifest.vocabulary.index_of(gene)
        is_chosen = (cells.obs["cell_type"] == "CD14 Mono") & (cells.obs["condition"] == condition)
        ranks = []
        for cell in np.flatnonzero(is_chosen):
            values = cells.values_of(cell)
            position = np.flatnonzero(cells.genes_of(cell) == index)
            if len(position):
                ranks.append(1 + np.count_nonzero(values > values[position[0]]))
        return np.median(ranks)

    # Data README, over the monocytes that express the gene; tied genes share their first rank.
    medians = {
        g: (median_rank(g, "control"), median_rank(g, "IFN-beta"))
        for g in ("ISG15", "CXCL10", "IFIT1")
    }
    assert medians == {"ISG15": (186, 3), "CXCL10": (173, 6), "IFIT1": (228.5, 38)}


@pytest.fixture
def plate(data_dir, monkeypatch):
    monkeypatch.setenv("C2S_RL_DATA", str(data_dir))
    return {
        "path": "${C2S_RL_DATA}/l1000/l1000_LJP005_A375_n377x978.gctx",
        "values": "log2",
        "symbol_column": "pr_gene_id",
        "tables": {"genes": "${C2S_RL_DATA}/genes/hgnc_slim.tsv.gz"},
    }


def test_the_l1000_plate_converts(plate, tmp_path):
    config = ConvertConfig(
        combine={"cell_line": ("cell_id",), "treatment": ("pert_iname", "pert_idose")}, **plate
    )
    manifest = run(config, tmp_path / "cells")
    assert (manifest.num_cells, len(manifest.symbols)) == (377, 978)
    # Data README: 0.97 in rank, 0.81 in log rank.
    assert manifest.rank_model.form is RankForm.LINEAR
    assert manifest.rank_form_r2[RankForm.LINEAR] == pytest.approx(0.97, abs=0.01)
    assert manifest.rank_form_r2[RankForm.LOG_RANK] == pytest.approx(0.81, abs=0.01)
    # 366 wells have their lowest value at 3.23, 10 at 3.32 and one at 3.41.
    assert manifest.mean_floor == pytest.approx((366 * 3.2301 + 10 * 3.3224 + 3.4147) / 377)
    cells = read_cells(tmp_path / "cells", ["cell_line", "treatment"])
    assert set(cells.obs["cell_line"]) == {"A375"}
    # One gene at the floor of 366 wells, two of 10, three of one: all leave their sentences.
    assert len(cells.genes) == 377 * 978 - 366 - 10 * 2 - 3
    treatments = cells.obs["treatment"].tolist()
    assert treatments.count("DMSO") == 26
    assert "dasatinib 10.0 um" in treatments
    assert list(manifest.sources[0].tables_sha256) == [plate["tables"]["genes"]]


def test_a_program_of_the_plate_keeps_its_order_and_its_values(plate, tmp_path):
    whole = run(ConvertConfig(**plate), tmp_path / "whole")
    part = run(ConvertConfig(genes=("hallmark_apoptosis",), **plate), tmp_path / "part")
    assert (len(part.symbols), part.genes) == (40, ("hallmark_apoptosis",))
    all_cells, cells = read_cells(tmp_path / "whole"), read_cells(tmp_path / "part")
    for cell in (0, 100, 376):
        words = write_sentence(all_cells.genes_of(cell), whole.vocabulary).split()
        kept = [i for i, word in enumerate(words) if word in part.symbols]
        assert write_sentence(cells.genes_of(cell), part.vocabulary).split() == [
            words[i] for i in kept
        ]
        np.testing.assert_array_equal(cells.values_of(cell), all_cells.values_of(cell)[kept])


def test_an_older_manifest_is_still_read(tmp_path):
    convert(make_adata([[1, 3], [2, 1]]), tmp_path)
    path = tmp_path / "cells" / "manifest.json"
    manifest = json.loads(path.read_text())
    for key in ("rank_form_r2", "mean_floor", "genes", "qc", "scale", "has_values"):
        del manifest[key]
    path.write_text(json.dumps(manifest))
    assert read_manifest(tmp_path / "cells").mean_floor == 0


def test_the_l1000_config_writes_every_gene_that_it_keeps(plate, tmp_path):
    sections = load_yaml(PROJECT / "configs" / "l1000_apoptosis_cpu.yaml")
    config = validate(ConvertConfig, sections["convert"], "convert")
    manifest = run(config, tmp_path / "cells")
    genes = sections["align"]["sampling"]["genes"]
    # A sentence is a whole order: all 40 apoptosis genes have a place in it.
    assert len(manifest.symbols) == sections["corpus"]["num_genes"] == genes["min_genes"] == 69
    assert genes["max_genes"] == 69
    assert len(program_indices(load_program("hallmark_apoptosis"), manifest.vocabulary)) == 40
