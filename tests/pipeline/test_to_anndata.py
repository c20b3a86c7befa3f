"""Shards and sentences back to expression, as a file that scanpy reads."""

import json

import anndata
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2s_rl.cells.rank_model import sentence_to_expression
from c2s_rl.cells.sentence import RepeatRule, parse_cells, write_sentence
from c2s_rl.data.completions import write_completions
from c2s_rl.data.sentence_files import SentenceBatch
from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.errors import DataError
from c2s_rl.pipeline import export_c2s, expression_chunks
from c2s_rl.pipeline.convert import ConvertConfig
from c2s_rl.pipeline.convert import run as convert
from c2s_rl.pipeline.to_anndata import ToAnnDataConfig, run
from c2s_rl.types import Completion, Group, PromptRecord, ScoredGroup, Split, Task
from tests.benchmarks.peers import load_cell2sentence
from tests.pipeline.shard_cases import lines, make_cells, read, toy_counts


def test_stored_cells_come_back_as_they_were(tmp_path):
    cells = make_cells(tmp_path)
    adata, written = read(tmp_path, cells)
    counts = toy_counts()
    expected = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-5)
    assert (adata.X.dtype, adata.X.has_sorted_indices) == (np.float32, True)
    assert adata.obs_names.tolist() == [f"c{i}" for i in range(50)]
    assert adata.obs["kind"].cat.categories.tolist() == ["B cell", "T cell"]
    assert adata.obs["kind"].isna().tolist() == [True] + [False] * 49
    assert adata.obs["source_row"].tolist() == list(range(50))
    assert adata.obs["num_genes"].tolist() == np.count_nonzero(counts, axis=1).tolist()
    assert written.num_words == np.count_nonzero(counts)
    assert (written.num_cells, written.num_unknown, written.num_repeated) == (50, 0, 0)


def test_the_file_says_where_its_numbers_come_from(tmp_path):
    cells = make_cells(tmp_path, gene_case="upper", names=[f"g{i}" for i in range(20)])
    model = read_manifest(cells).rank_model
    adata, _ = read(tmp_path, cells, values="rank_model")
    about = adata.uns["c2s_rl"]
    assert about["rank_model"] == {
        "form": model.form.value,
        "slope": model.slope,
        "intercept": model.intercept,
        "r2": model.r2,
    }
    assert (about["unit"], about["values"]) == ("log1p(CP10k)", "rank_model")
    assert about["cells"] == str(cells)
    assert adata.uns["log1p"] == {}  # scanpy: natural logarithm
    assert adata.var_names[:2].tolist() == ["g0", "g1"]
    assert adata.var["sentence_symbol"].tolist()[:2] == ["G0", "G1"]
    renamed, _ = read(tmp_path, cells, var_names="sentence")
    assert renamed.var_names[:2].tolist() == ["G0", "G1"]


def test_stored_cells_by_the_rank_model_equal_one_sentence_at_a_time(tmp_path):
    folder = make_cells(tmp_path)
    adata, written = read(tmp_path, folder, values="rank_model")
    model, cells = read_manifest(folder).rank_model, read_cells(folder)
    expected = [sentence_to_expression(cells.genes_of(i), model, 20) for i in range(50)]
    np.testing.assert_array_equal(adata.X.toarray(), expected)
    below = sum(
        int(cells.indptr[i + 1] - cells.indptr[i]) - np.count_nonzero(e)
        for i, e in enumerate(expected)
    )
    assert written.num_below_zero == below == adata.obs["num_below_zero"].sum()


def test_words_are_counted_by_what_became_of_them(tmp_path):
    cells = make_cells(tmp_path)
    path = lines(tmp_path, "G3 G1 G3 WHAT G2.", "", "NO NO G5")
    adata, written = read(tmp_path, cells, sentences=path)
    line = read_manifest(cells).rank_model.expression(3)
    assert (line > 0).all()
    dense = adata.X.toarray()
    np.testing.assert_array_equal(dense[0, [3, 1, 2]], line)  # ranks 1, 2, 3
    assert np.count_nonzero(dense, axis=1).tolist() == [3, 0, 1]
    counts = adata.obs[["num_words", "num_genes", "num_unknown_words", "num_repeated_words"]]
    assert counts.to_numpy().tolist() == [[5, 3, 1, 1], [0, 0, 0, 0], [3, 1, 2, 0]]
    assert (written.num_words, written.num_unknown, written.num_repeated) == (8, 3, 1)
    assert adata.obs_names.tolist() == ["sentence-0", "sentence-1", "sentence-2"]
    assert adata.uns["c2s_rl"]["sentences"] == path


def test_mean_places_equal_the_package(tmp_path):
    cells = make_cells(tmp_path, rank_form="log_rank")  # the only form that the package has
    manifest = read_manifest(cells)
    rng = np.random.default_rng(0)
    words = [*manifest.symbols, "NOT1", "NOT2"]
    texts = [" ".join(rng.choice(words, size=30)) for _ in range(300)]  # more than a chunk
    adata, _ = read(tmp_path, cells, sentences=lines(tmp_path, *texts), repeats="mean")
    peer, symbols = load_cell2sentence(), list(manifest.symbols)
    model = manifest.rank_model
    for row, text in enumerate(texts):
        post, num = peer.post_process_generated_cell_sentences(text, symbols)
        expected = peer.reconstruct_expression_from_cell_sentence(
            " ".join(post), " ", symbols, model.slope, model.intercept
        )
        np.testing.assert_allclose(
            adata.X[row].toarray()[0], np.maximum(expected, 0), rtol=1e-5, atol=1e-6
        )
        assert adata.obs["num_unknown_words"].iloc[row] == num


def test_labels_of_a_table_become_obs(tmp_path):
    cells = make_cells(tmp_path)
    rows = [
        {"cell_name": "a", "cell_sentence": "G1 G2", "cell_type": "T", "score": 1, "w": [1]},
        {"cell_name": "a", "cell_sentence": "G2", "cell_type": None, "score": 2, "w": [2]},
    ]
    path = tmp_path / "cells.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    adata, _ = read(tmp_path, cells, sentences=str(path))
    assert adata.obs_names.tolist() == ["a", "a#1"]
    assert adata.obs["cell_type"].isna().tolist() == [False, True]
    assert adata.obs["score"].tolist() == [1, 2]
    assert "w" not in adata.obs


def test_a_number_that_is_missing_later_makes_the_column_wider(tmp_path):
    cells = make_cells(tmp_path)
    for number, score in ((0, [1, 2]), (1, [3, None])):
        table = pa.table({"text": ["G1", "G2"], "score": pa.array(score, pa.int64())})
        pq.write_table(table, tmp_path / f"part-{number}.parquet")
    folder = tmp_path / "parts"
    folder.mkdir()
    for file in tmp_path.glob("part-*.parquet"):
        file.rename(folder / file.name)
    adata, _ = read(tmp_path, cells, sentences=str(folder))
    np.testing.assert_array_equal(adata.obs["score"], [1, 2, 3, np.nan])


def test_columns_of_some_files_only_are_missing_in_the_others(tmp_path):
    cells = make_cells(tmp_path)
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["G1"], "reward/tau": [0.5]}), folder / "a.parquet")
    pq.write_table(pa.table({"text": ["G2"], "note": ["x"]}), folder / "b.parquet")
    adata, _ = read(tmp_path, cells, sentences=str(folder))
    np.testing.assert_array_equal(adata.obs["reward_tau"], [0.5, np.nan])
    assert adata.obs["note"].astype(object).fillna("").tolist() == ["", "x"]


def scored_groups(vocabulary):
    """Two prompts with two answers each."""
    texts = ("G1 G2 G1", "G3")
    cells = tuple(parse_cells(texts, vocabulary, is_truncated_C=[False, False]))
    completions = tuple(Completion(t, (1, 2), (-1.0, -2.0), 3, is_truncated=False) for t in texts)
    nothing = np.empty(0, dtype=np.int32)
    return [
        ScoredGroup(
            Group(
                PromptRecord(
                    prompt_id=f"p{number}",
                    prompt="A T cell:",
                    target=" G1",
                    task=Task.CELL_GENERATION,
                    condition="T cell",
                    context_id="",
                    target_id="c1",
                    split=Split.TRAIN,
                    target_genes_K=nothing,
                    context_genes_K=nothing,
                ),
                (1,),
                completions,
                cells,
            ),
            (0.25, 0.75),
            {"kendall": (0.25, 0.75)},
        )
        for number in range(2)
    ]


def test_completions_of_a_run_keep_their_prompts_and_scores(tmp_path):
    cells = make_cells(tmp_path)
    groups = scored_groups(read_manifest(cells).vocabulary)
    folder = tmp_path / "completions"
    for step in (1, 2):  # the same prompts are asked again
        write_completions(folder / f"step-{step}.parquet", groups, [[0.0, 0.0]] * len(groups))
    adata, _ = read(tmp_path, cells, sentences=str(folder))
    assert adata.obs_names.tolist() == [
        f"p{p}#{n}" for s in (0, 2) for p in (0, 1) for n in (s, s + 1)
    ]
    assert adata.obs["prompt_id"].tolist() == ["p0", "p0", "p1", "p1"] * 2
    assert adata.obs["sample"].tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert adata.obs["condition"].tolist() == ["T cell"] * 8
    assert adata.obs["reward"].tolist()[:2] == [0.25, 0.75]
    other = make_cells(tmp_path, names=[f"G{i + 1}" for i in range(20)])
    with pytest.raises(DataError, match="must parse to the genes that were recorded, got 2 genes"):
        read(tmp_path, other, sentences=str(folder))


def test_mostly_unknown_words_are_written_with_a_warning(tmp_path, caplog):
    cells = make_cells(tmp_path)
    read(tmp_path, cells, sentences=lines(tmp_path, "G1 WHAT IS THIS"))
    assert "3 of 4 words of" in caplog.text
    assert "are no symbols of the cells, such as 'WHAT', 'IS', 'THIS'" in caplog.text


def test_chunks_do_not_change_the_file(tmp_path, monkeypatch):
    cells = make_cells(tmp_path)
    whole, _ = read(tmp_path, cells)
    monkeypatch.setattr(expression_chunks, "CELLS_AT_ONCE", 7)
    parts, _ = read(tmp_path, cells)
    np.testing.assert_array_equal(parts.X.toarray(), whole.X.toarray())
    assert parts.obs.equals(whole.obs)


def test_real_cells_go_to_scanpy_and_back_to_the_same_sentences(tmp_path, data_dir):
    import scanpy as sc

    path = data_dir / "kang" / "kang_ifnb_2000x13215.h5ad"
    convert(ConvertConfig(path=str(path), values="log1p", obs=("cell_type",)), tmp_path / "cells")
    manifest, cells = read_manifest(tmp_path / "cells"), read_cells(tmp_path / "cells")
    adata, _ = read(tmp_path, tmp_path / "cells", values="rank_model")
    # Above 0 everywhere, and falling with the rank: the order of the values is the sentence.
    for row in range(0, 2000, 97):
        values = adata.X[row].toarray()[0]
        order = np.argsort(-values, kind="stable")[: np.count_nonzero(values)]
        np.testing.assert_array_equal(order, cells.genes_of(row))
    texts = [write_sentence(cells.genes_of(row), manifest.vocabulary) for row in range(2000)]
    again, _ = read(
        tmp_path, tmp_path / "cells", sentences=lines(tmp_path, *texts), repeats=RepeatRule.MEAN
    )
    assert (again.X != adata.X).nnz == 0
    sc.pp.highly_variable_genes(adata, n_top_genes=500)
    sc.pp.pca(adata, n_comps=5)
    assert adata.obsm["X_pca"].shape == (2000, 5)


def test_a_data_set_of_the_package_becomes_anndata(tmp_path):
    cells = make_cells(tmp_path)
    export_c2s.run(cells, tmp_path / "c2s")
    adata, written = read(tmp_path, cells, sentences=str(tmp_path / "c2s"))
    expected, _ = read(tmp_path, cells, values="rank_model")
    np.testing.assert_array_equal(adata.X.toarray(), expected.X.toarray())
    assert adata.obs_names.tolist() == expected.obs_names.tolist()
    assert adata.obs["kind"].equals(expected.obs["kind"])
    assert written.num_unknown == 0


def test_cells_without_values_go_by_the_rank_model(tmp_path):
    cells = make_cells(tmp_path, write_values=False)
    adata, written = read(tmp_path, cells)
    assert written.values == adata.uns["c2s_rl"]["values"] == "rank_model"
    with pytest.raises(
        DataError, match=r"got genes only in .*; use values: rank_model, or convert"
    ):
        read(tmp_path, cells, values="stored")


def test_scanpy_is_told_the_base_of_the_logarithm(tmp_path):
    cells = make_cells(tmp_path, scale={"log": "log10"})
    adata, _ = read(tmp_path, cells)
    assert adata.uns["c2s_rl"]["unit"] == "log10(1+CP10k)"
    assert adata.uns["log1p"] == {"base": 10}


def test_answers_in_memory_are_written_like_those_of_a_file(tmp_path):
    config = ToAnnDataConfig(cells=make_cells(tmp_path))
    labels = {"cell_type": np.array(["T cell", ""], dtype=object)}
    batch = SentenceBatch(["G1 G2", "G3"], [False, False], ["a", "b"], labels, None, "vLLM")
    run(config, tmp_path / "out.h5ad", answers=[batch])
    adata = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert adata.obs_names.tolist() == ["a", "b"]
    assert adata.obs["cell_type"].isna().tolist() == [False, True]
    assert adata.obs["num_genes"].tolist() == [2, 1]
    assert adata.uns["c2s_rl"]["sentences"] == "the answers"
