"""Stages as the command line runs them: tissue to prompts, and a corpus that leaks is not used."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from actors.jobs import load_run, run_stage
from c2s_rl.data.prompt_set import SCHEMA, read_prompts
from c2s_rl.data.shards import read_manifest
from c2s_rl.errors import DataError, StageError
from c2s_rl.types import Split, Task

CONFIG = """
name: tissue
convert:
  path: {path}
  values: counts
  min_genes: 1
  obs: [cell_type, niche, slide, x, y]
corpus:
  tasks: [niche_annotation, neighbour_generation, same_neighbourhood, same_niche]
  num_genes: 8
  split:
    spatial_blocks: {{sample_column: slide, num: [2, 1], fraction: 0.5, buffer: 0.05}}
  spatial: {{sample_column: slide, niche_column: niche, radius: 0.05}}
base_model:
  kind: gpt_neox
  gpt_neox: {{hidden_size: 32, num_layers: 1, num_heads: 1, vocabulary_size: 300, max_position: 64}}
"""


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A config beside a slide of 400 cells at random places; coordinates are numbers, not text."""
    generator = np.random.default_rng(0)
    num = 400
    counts = generator.poisson(0.4, size=(num, 30)).astype(np.float32) + np.eye(num, 30)
    obs = pd.DataFrame(
        {
            "cell_type": generator.choice(["hepatocyte", "Kupffer cell"], num),
            "niche": generator.choice(["portal", "central"], num),
            "slide": generator.choice(["s1", "s2"], num),
            "x": generator.random(num),
            "y": generator.random(num).astype(np.float32),
        },
        index=[f"cell{i}" for i in range(num)],
    )
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(30)])
    counts[:, 0] += 1  # no cell is empty
    anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs, var).write_h5ad(
        tmp_path / "tissue.h5ad"
    )
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(path=tmp_path / "tissue.h5ad"), encoding="utf-8")
    return path


def test_tissue_becomes_prompts_and_a_corpus_that_leaks_is_not_used(
    run_file: Path, tmp_path: Path
) -> None:
    run = load_run(run_file, [f"runs_dir={tmp_path}"])
    for stage in ("convert", "corpus"):
        run_stage(run, stage)
    corpus = run.folder / "corpus"
    prompts = read_prompts(corpus)
    tasks = {Task(task) for task in run.corpus.tasks} if run.corpus else set()
    assert {(r.task, r.split) for r in prompts.records} == {(t, s) for t in tasks for s in Split}
    assert prompts.manifest.dropped["in_buffer"] > 0
    # Put a test prompt on the training side, as a corpus joined by hand might.
    shard = corpus / "prompts-00000.parquet"
    table = pq.read_table(shard)
    is_moved = pc.equal(table["prompt_id"], prompts.records[0].prompt_id)
    other = "test" if prompts.records[0].split is Split.TRAIN else "train"
    sides = pc.if_else(is_moved, other, table["split"].cast(pa.string())).dictionary_encode()
    index = table.schema.get_field_index("split")
    pq.write_table(table.set_column(index, "split", sides).cast(SCHEMA), shard)
    with pytest.raises(DataError, match=r"must not share a context cell, got .* in .*make the cor"):
        run_stage(run, "base_model")
    assert not (run.folder / "base").exists()


def test_a_corpus_is_not_reused_when_a_file_that_it_was_made_of_was_edited(
    run_file: Path, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("GENE0\tGENE1\nGENE0\tGENE2\n", encoding="utf-8")
    changes = [f"runs_dir={tmp_path}", "corpus.tasks=[niche_annotation, gene_partners]",
               f"corpus.gene_interactions={{path: {pairs}}}"]  # fmt: skip
    run = load_run(run_file, changes)
    for stage in ("convert", "corpus", "corpus"):  # once to make it, once to reuse it
        run_stage(run, stage)

    def partners() -> set[str]:
        return {
            record.target
            for record in read_prompts(run.folder / "corpus").records
            if record.task is Task.GENE_PARTNERS
        }

    before = partners()
    pairs.write_text("GENE0\tGENE1\nGENE0\tGENE3\n", encoding="utf-8")
    with pytest.raises(StageError, match=r"got files\.pairs\.tsv '\w{64}' -> '\w{64}'; choose"):
        run_stage(run, "corpus")
    assert partners() == before
    run_stage(run, "corpus", overwrite=True)
    assert any("GENE3" in target for target in partners())
    pairs.unlink()
    with pytest.raises(StageError, match=r"got files\.pairs\.tsv '\w{64}' -> None"):
        run_stage(run, "corpus")


def test_cells_are_not_reused_when_the_file_that_they_were_converted_from_has_other_contents(
    run_file: Path, tmp_path: Path
) -> None:
    source = tmp_path / "tissue.h5ad"
    run = load_run(run_file, [f"runs_dir={tmp_path}"])
    for stage in ("convert", "corpus", "convert"):
        run_stage(run, stage)
    source.touch()  # another time, the same contents: read once and reused
    for stage in ("convert", "corpus"):
        run_stage(run, stage)
    adata = anndata.read_h5ad(source)
    adata[:300].copy().write_h5ad(source)
    with pytest.raises(StageError, match=r"got other contents of \S+tissue\.h5ad; choose another"):
        run_stage(run, "convert")
    assert read_manifest(run.folder / "cells").num_cells == 400
    run_stage(run, "convert", overwrite=True)
    assert read_manifest(run.folder / "cells").num_cells == 300
    # The prompts are of cells that are gone.
    with pytest.raises(StageError, match="got another output of convert"):
        run_stage(run, "corpus")
    source.unlink()  # a run that was moved away from its files is still a run
    run_stage(run, "convert")


def test_cells_are_not_reused_when_a_table_or_a_gene_list_was_edited(
    run_file: Path, tmp_path: Path
) -> None:
    genes, table = tmp_path / "genes.txt", tmp_path / "obs.tsv"
    genes.write_text("GENE0\nGENE1\n", encoding="utf-8")
    lines = [f"cell{i}\tdonor{i % 2}\n" for i in range(400)]
    table.write_text("cell_id\tdonor\n" + "".join(lines), encoding="utf-8")
    changes = [f"convert.genes=[{genes}]", f"convert.tables.obs={table}", "convert.obs=[donor]"]
    run = load_run(run_file, [f"runs_dir={tmp_path}", *changes])
    for _ in range(2):  # made and reused
        run_stage(run, "convert")
    genes.write_text("GENE0\nGENE2\n", encoding="utf-8")
    with pytest.raises(StageError, match=r"got other contents of \S+genes\.txt; choose"):
        run_stage(run, "convert")
    table.write_text("cell_id\tdonor\n" + "".join(reversed(lines)), encoding="utf-8")
    with pytest.raises(StageError, match=r"other contents of \S+obs\.tsv; other.*genes\.txt"):
        run_stage(run, "convert")
    run_stage(run, "convert", overwrite=True)
    assert read_manifest(run.folder / "cells").symbols == ("GENE0", "GENE2")
