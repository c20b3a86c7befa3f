"""The stage embed in one process: vectors, forms, resuming, and what it refuses."""

import json

import anndata as ad
import numpy as np
import pyarrow.parquet as pq
import pytest

from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.errors import ConfigError, DataError, MissingFileError, StageError
from c2s_rl.models.encoder_dtype import EncoderDtype
from c2s_rl.models.policy_embedder import PolicyEmbedder
from c2s_rl.pipeline import embed, embed_shards
from c2s_rl.pipeline.embed import EmbedConfig, EmbedFolders
from c2s_rl.pipeline.embed_shards import embed_here
from tests.pipeline.embed_cases import prepare, write_policy


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("embed"))


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 16 contexts, so that 50 cells are four."""
    defaults = embed_shards.EmbedJob.__init__.__defaults__
    monkeypatch.setattr(embed_shards.EmbedJob.__init__, "__defaults__", (16,))
    return defaults


def run(prepared, output, execute=embed_here, **options):
    config = EmbedConfig.model_validate({"num_genes": 12} | options)
    return embed.run(config, EmbedFolders(prepared.policy, prepared.cells, output), execute)


def vectors_in(folder):
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    ids = [i for part in parts for i in part["context_id"].to_pylist()]
    rows = np.concatenate([np.stack(part["vector"].to_numpy()) for part in parts])
    return dict(zip(ids, rows, strict=True))


def expected_vector(prepared, text):
    return PolicyEmbedder(prepared.policy, dtype=EncoderDtype.FLOAT32, batch_tokens=1).embed(
        [text], ["it"]
    )[0]


def sentence(prepared, cell, num_genes=12):
    table = read_cells(prepared.cells)
    symbols = read_manifest(prepared.cells).symbols
    genes = table.genes_of(table.cell_ids.index(cell))[:num_genes]
    return " ".join(symbols[gene] for gene in genes.tolist())


@pytest.mark.usefixtures("small_shards")
def test_every_cell_gets_the_vector_of_its_prompt(prepared, tmp_path):
    run(prepared, tmp_path / "embed")
    found = vectors_in(tmp_path / "embed")
    assert list(found) == [f"c{i}" for i in range(50)]
    assert len(list((tmp_path / "embed").glob("part-*.parquet"))) == 4
    text = f"Predict the cell type of this cell: {sentence(prepared, 'c7')}\nCell type:"
    np.testing.assert_allclose(found["c7"], expected_vector(prepared, text), atol=1e-6)
    adata = ad.read_h5ad(tmp_path / "embed" / "embeddings.h5ad")
    assert adata.shape == (50, 0)
    np.testing.assert_array_equal(adata.obsm["X_c2s"], np.stack(list(found.values())))
    assert adata.obsm["X_c2s"].dtype == np.float32
    assert adata.obs.loc["c7"].to_dict() == {"cell_type": "T cell", "donor": "d2"}
    facts = json.loads(adata.uns["c2s_rl"])
    assert facts["layer"] == "last hidden state of the last layer, after the final norm"
    assert facts["config"]["num_genes"] == 12


def test_the_prompt_may_be_the_sentence_alone_or_the_users_own(prepared, tmp_path):
    run(prepared, tmp_path / "bare", prompt="sentence", labels=["donor"], h5ad=False)
    run(prepared, tmp_path / "own", prompt="{organism}: {cell_sentence}", num_genes=5)
    bare, own = vectors_in(tmp_path / "bare"), vectors_in(tmp_path / "own")
    text = sentence(prepared, "c3")
    np.testing.assert_allclose(bare["c3"], expected_vector(prepared, text), atol=1e-6)
    text = f"Homo sapiens: {sentence(prepared, 'c3', 5)}"
    np.testing.assert_allclose(own["c3"], expected_vector(prepared, text), atol=1e-6)
    columns = pq.read_schema(tmp_path / "bare" / "part-00000.parquet").names
    assert columns == ["context_id", "donor", "vector"]
    assert not (tmp_path / "bare" / "embeddings.h5ad").exists()


def test_samples_share_their_labels_and_are_written_together(prepared, tmp_path):
    run(prepared, tmp_path / "embed", samples={"by": ["cell_type", "donor"], "cells": 3})
    found = vectors_in(tmp_path / "embed")
    # B cells have even numbers, d1 numbers that 3 divides: 0, 6, 12 are the first such sample.
    # Of 50 cells 9 and 8 are (B, d1) and (T, d1), 16 and 17 the d2 ones: 3 + 2 + 5 + 5 samples.
    assert len(found) == 15
    cells = "\n".join(
        f"Cell {i}: {sentence(prepared, name)}" for i, name in enumerate(("c0", "c6", "c12"), 1)
    )
    text = f"Predict the cell type of each of these 3 Homo sapiens cells.\n{cells}\nCell types:"
    np.testing.assert_allclose(found["B cell | d1 | 0"], expected_vector(prepared, text), atol=1e-6)
    manifest = json.loads((tmp_path / "embed" / "manifest.json").read_text())
    assert (manifest["num_left_over"], manifest["num_unlabelled"]) == (5, 0)  # 0 + 2 + 1 + 2


def test_texts_of_a_file_are_embedded_with_their_labels(prepared, tmp_path):
    lines = [{"id": "a", "text": "B cell", "kind": "x"}, {"id": "b", "text": "T cell", "kind": "y"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (tmp_path / "t.tsv").write_text("id\ttext\tkind\na\tB cell\tx\nb\tT cell\ty\n")
    for name in ("t.jsonl", "t.tsv"):
        run(prepared, tmp_path / f"of-{name}", texts=tmp_path / name, num_genes=None)
    one, other = (vectors_in(tmp_path / f"of-{name}") for name in ("t.jsonl", "t.tsv"))
    np.testing.assert_array_equal(one["b"], other["b"])
    np.testing.assert_allclose(one["b"], expected_vector(prepared, "T cell"), atol=1e-6)
    adata = ad.read_h5ad(tmp_path / "of-t.tsv" / "embeddings.h5ad")
    assert adata.obs["kind"].tolist() == ["x", "y"]


def test_a_copy_of_the_users_file_gets_the_vectors_and_keeps_the_rest(prepared, tmp_path):
    adata = ad.read_h5ad(prepared.h5ad)[::-1].copy()[5:45].copy()  # another order, fewer cells
    adata.obsm["X_pca"] = np.ones((40, 2))
    adata.uns["mine"] = {"a": 1}
    own = tmp_path / "own.h5ad"
    adata.write_h5ad(own)
    before = own.read_bytes()
    run(prepared, tmp_path / "embed", into=own)
    assert own.read_bytes() == before
    copy = ad.read_h5ad(tmp_path / "embed" / "own.h5ad")
    found = vectors_in(tmp_path / "embed")
    np.testing.assert_array_equal(
        copy.obsm["X_c2s"], np.stack([found[name] for name in adata.obs_names])
    )
    del copy.obsm["X_c2s"]
    assert (copy.X != adata.X).nnz == 0
    assert copy.obs.equals(adata.obs)
    assert copy.uns == {"mine": {"a": 1}}
    np.testing.assert_array_equal(copy.obsm["X_pca"], adata.obsm["X_pca"])
    manifest = json.loads((tmp_path / "embed" / "manifest.json").read_text())
    assert manifest["num_not_in_file"] == 10


def test_a_cell_without_a_vector_is_an_error_and_no_copy_is_left(prepared, tmp_path):
    adata = ad.read_h5ad(prepared.h5ad)
    adata.obs_names = ["stranger", *adata.obs_names[1:]]
    adata.write_h5ad(tmp_path / "own.h5ad")
    with pytest.raises(DataError, match=r"got 1 of 50 without: 'stranger'"):
        run(prepared, tmp_path / "embed", into=tmp_path / "own.h5ad")
    assert not (tmp_path / "embed").exists()  # found out before anything is embedded
    adata.obsm["X_c2s"] = np.ones((50, 1))
    adata.write_h5ad(tmp_path / "full.h5ad")
    with pytest.raises(DataError, match="obsm must have no 'X_c2s' yet"):
        run(prepared, tmp_path / "full", into=tmp_path / "full.h5ad")


@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_stage_goes_on_to_the_same_bytes(prepared, tmp_path):
    def interrupted(job, shards):
        for number, shard in enumerate(embed_here(job, shards)):
            if number == 2:
                raise KeyboardInterrupt
            yield shard

    run(prepared, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(prepared, tmp_path / "cut", execute=interrupted)
    cut = sorted((tmp_path / "cut").glob("part-*"))
    assert len(cut) == 3  # the third was written before the interruption was seen
    cut[1].write_bytes(cut[1].read_bytes()[:100])  # a half-written file is made again
    remade = []

    def watched(job, shards):
        remade.extend(shards)
        return embed_here(job, shards)

    run(prepared, tmp_path / "cut", execute=watched)
    assert remade == [1, 3]
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "cut").iterdir()} == whole
    remade.clear()
    run(prepared, tmp_path / "cut", execute=watched)  # finished: nothing is done
    assert remade == []


def test_it_does_not_go_on_from_another_policy(prepared, tmp_path):
    run(prepared, tmp_path / "embed")
    other = EmbedFolders(
        write_policy(tmp_path / "other", seed=1), prepared.cells, tmp_path / "embed"
    )
    with pytest.raises(StageError, match=r"got another sha256: .* --overwrite begins again"):
        embed.run(EmbedConfig(num_genes=12), other, embed_here)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(StageError, match=r"hold plan\.json, got .*full with other files"):
        run(prepared, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["celltype"]}, DataError, "did you mean 'cell_type'"),
        ({"samples": {"by": ["donor"], "cells": 40}}, DataError, "needs 40 cells .* at most 33"),
        ({"num_genes": None}, ConfigError, "embed.num_genes must be given"),
        ({"into": "x/embeddings.h5ad"}, ConfigError, "another name than embeddings.h5ad"),
        ({"num_genes": 30, "prompt": "{cell_sentence} " * 20}, DataError, "512 tokens"),
    ],
)
def test_what_cannot_be_embedded_is_named(prepared, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(prepared, tmp_path / "embed", **options)
    assert not list(tmp_path.glob("embed/*.h5ad"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "a", "one of .jsonl, .tsv"),
        ("t.tsv", "id\tbody\n", "columns id and text"),
        ("t.tsv", "id\ttext\na\n", "2 columns, got 1 in line 2"),
        ("t.tsv", "id\ttext\na\tx\na\ty\n", "its id be its own, got id 'a'.* in text 2"),
        ("t.tsv", "id\ttext\n", "at least one"),
        ("t.jsonl", '{"id": "a", "text": " "}\n', "must not be empty"),
        ("t.jsonl", "{id}\n", "an object a line"),
        ("t.jsonl", '{"id": "a"}\n', "with id and text"),
        ("t.jsonl", '{"id": "a", "text": "x"}\n{"id": "b", "text": "y", "k": 1}', "text 2"),
    ],
)
def test_a_bad_file_of_texts_is_named(prepared, tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        run(prepared, tmp_path / "embed", texts=tmp_path / name, num_genes=None)


def test_missing_inputs_are_named(prepared, tmp_path):
    with pytest.raises(MissingFileError, match="texts must be a file"):
        run(prepared, tmp_path / "embed", texts=tmp_path / "no.tsv", num_genes=None)
    folders = EmbedFolders(tmp_path / "no", prepared.cells, tmp_path / "embed")
    with pytest.raises(MissingFileError, match=r"folder with a config\.json, got .*no"):
        embed.run(EmbedConfig(num_genes=3), folders, embed_here)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "no place"}, "either {cell_sentence} or {cell_sentences}"),
        ({"prompt": "{cell}"}, "one of .*, got 'cell'"),
        ({"prompt": "{cell_sentence"}, "pair up"),
        ({"prompt": "{cell_sentence}", "samples": {"by": ["donor"]}}, "must hold {cell_sentences}"),
        ({"texts": "t.tsv", "num_genes": 4}, "without num_genes, got both"),
        ({"samples": {"by": ["donor"]}, "into": "a.h5ad"}, "single cells"),
        ({"integration": {"by": ["donor"], "colour_by": "type"}}, "colour_by must be one of"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EmbedConfig.model_validate(options)
