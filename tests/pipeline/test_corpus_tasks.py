"""The stage with all pretraining tasks on real cells: counts, sides, bytes, budget, styles."""

import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from c2s_rl.cells.programs import read_gmt
from c2s_rl.checkpoint import sha256_of
from c2s_rl.data import corpus as corpus_module
from c2s_rl.data.cell_table import CellTable, concatenated, sliced
from c2s_rl.data.part_file import write_part
from c2s_rl.data.prompt_set import PromptSet, read_prompts
from c2s_rl.data.shards import read_cells, read_manifest, write_manifest
from c2s_rl.data.values import Values
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.models.tokenizer import train_bpe
from c2s_rl.pipeline import convert, corpus
from c2s_rl.prompts.c2s_style import TEMPLATE_FILES, load_c2s_style
from c2s_rl.types import PRETRAINING_TASKS, Split, Task

ABSTRACT = "Blood cells of lupus patients were cultured with interferon beta or without it."


@pytest.fixture(scope="module")
def cells(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 of the Kang cells; every other one is said to be of another tissue."""
    folder = tmp_path_factory.mktemp("kang")
    source = convert.ConvertConfig(
        path=str(data_dir / "kang" / "kang_ifnb_2000x13215.h5ad"),
        values=Values.LOG1P,
        obs=("cell_type", "condition"),
    )
    convert.run(source, folder / "all")
    table = sliced(read_cells(folder / "all", ["cell_type", "condition"]), 0, 2000)
    rows = [i for i in range(2000) if i % 4 == 0]
    write_again(
        folder / "all", folder / "cells", concatenated([sliced(table, i, i + 1) for i in rows])
    )
    return folder / "cells"


def write_again(like: Path, folder: Path, table: CellTable) -> None:
    """Write cells with the manifest of others, and a column 'tissue' drawn from their ids."""
    tissue = np.array([("blood", "spleen")[sum(map(ord, i)) % 2] for i in table.cell_ids])
    obs = {**{k: v for k, v in table.obs.items() if k != "tissue"}, "tissue": tissue}
    told = CellTable(
        table.cell_ids, table.indptr, table.genes, table.values, obs, table.source_rows
    )
    manifest = read_manifest(like).model_copy(
        update={"num_cells": len(told), "obs_columns": tuple(obs), "parts": ("part-00000.parquet",)}
    )
    folder.mkdir()
    write_part(folder / manifest.parts[0], [told], source_file="kang.h5ad", has_values=True)
    write_manifest(folder, manifest)


def config(data_dir: Path, folder: Path, **changes: object) -> corpus.CorpusConfig:
    abstracts = folder / "abstracts.tsv"
    abstracts.write_text(f"kang\t{ABSTRACT}\n")
    settings: Mapping[str, object] = {
        "tasks": "pretraining",
        "condition_column": "condition",
        "control": "control",
        "num_genes": 20,
        "split": {"test_fraction": 0.25},
        "multi_cell": {
            "cells_per_sample": [2, 4],
            "samples_per_group": 6,
            "tissue_column": "tissue",
            "abstracts": abstracts,
        },
        "gene_sets": {
            "paths": [data_dir / "genesets" / "c2s_rl_genesets.gmt"],
            "test_fraction": 0.2,
            "max_genes": 40,
        },
        **changes,
    }
    return corpus.CorpusConfig.model_validate(settings)


@pytest.fixture(scope="module")
def prompts(cells: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptSet:
    folder = tmp_path_factory.mktemp("corpus")
    corpus.run(config(data_dir, folder), cells, folder / "corpus")
    return read_prompts(folder / "corpus")


def test_numbers_of_prompts_follow_from_cells_samples_and_sets(
    prompts: PromptSet, cells: Path, data_dir: Path
) -> None:
    table = read_cells(cells, ["condition"])
    num_controls = int((table.obs["condition"] == "control").sum())
    num_sets = len(read_gmt(data_dir / "genesets" / "c2s_rl_genesets.gmt"))
    # Groups: 2 sides x 2 tissues x 2 treatments, half of them untreated; 6 samples of each.
    expected = dict.fromkeys(PRETRAINING_TASKS, 8 * 6)
    expected |= {
        Task.SINGLE_CELL_LANGUAGE_MODELLING: 500,
        Task.CELL_TYPE_ANNOTATION: 500,
        Task.CELL_GENERATION: num_controls,
        Task.TISSUE_SAMPLE_GENERATION: 4 * 6,
        Task.CELL_TYPE_SAMPLE_GENERATION: 4 * 6,
        Task.GENE_SET_ENUMERATION: num_sets,
        Task.GENE_SET_NAMING: num_sets,
    }
    assert Counter(r.task for r in prompts.records) == expected
    counted: Counter[Task] = Counter()
    for count in prompts.manifest.counts:
        counted[count.task] += count.num_prompts
    assert counted == expected
    assert {r.task for r in prompts.records if r.split is Split.TEST} == set(PRETRAINING_TASKS)


def test_the_manifest_has_the_hash_of_every_file(
    prompts: PromptSet, cells: Path, data_dir: Path, tmp_path: Path
) -> None:
    gmt = data_dir / "genesets" / "c2s_rl_genesets.gmt"
    hashes = prompts.manifest.sources_sha256
    assert list(hashes) == ["abstracts.tsv", "c2s_rl_genesets.gmt"]
    assert hashes[gmt.name] == sha256_of(gmt)
    # Namesakes of two folders are both there.
    lines = gmt.read_text().splitlines(keepends=True)
    paths = [tmp_path / side / "sets.gmt" for side in ("a", "b")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        path.write_text(lines[number])
    wanted = config(
        data_dir,
        tmp_path,
        tasks=["gene_set_naming"],
        multi_cell=None,
        gene_sets={"paths": paths},
    )
    found = corpus.run(wanted, cells, tmp_path / "corpus").sources_sha256
    assert found == {"sets.gmt": sha256_of(paths[0]), "sets.gmt (2)": sha256_of(paths[1])}


def test_no_cell_stands_on_both_sides(prompts: PromptSet) -> None:
    used = {
        side: {i for r in prompts.records if r.split is side for i in r.context_ids + r.target_ids}
        for side in Split
    }
    assert used[Split.TRAIN]
    assert not used[Split.TRAIN] & used[Split.TEST]
    for record in prompts.records:
        assert record.context_id == (record.context_ids or ("",))[0]
        assert record.target_id == (record.target_ids or ("",))[0]


def test_the_same_cells_in_another_order_give_equal_bytes(
    cells: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read_cells(cells, ["cell_type", "condition", "tissue"])
    order = random.Random(0).sample(range(len(table)), len(table))
    moved = concatenated([sliced(table, i, i + 1) for i in order])
    write_again(cells, tmp_path / "moved", moved)
    wanted = config(data_dir, tmp_path, reward_target="pseudobulk")
    corpus.run(wanted, cells, tmp_path / "first")
    # And with many blocks in the place of one.
    monkeypatch.setattr(corpus_module, "CELLS_PER_BLOCK", 40)
    corpus.run(wanted, tmp_path / "moved", tmp_path / "second")
    for path in sorted((tmp_path / "first").glob("prompts-*.parquet")):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("style", "most", "tasks"),
    [
        ("c2s_rl", 100, PRETRAINING_TASKS[:10]),  # all that show or ask for cells
        ("cell2sentence", 240, [task for task in PRETRAINING_TASKS if task in TEMPLATE_FILES]),
    ],
)
def test_a_budget_in_tokens_of_a_tokenizer_is_kept_and_used(
    cells: Path,
    data_dir: Path,
    tmp_path: Path,
    prompts: PromptSet,
    style: str,
    most: int,
    tasks: list[Task],
) -> None:
    texts = [record.target for record in prompts.records[:400]]
    train_bpe(texts, vocabulary_size=800, max_length=512).save_pretrained(tmp_path / "tokenizer")
    budget = {"max_tokens": most, "tokenizer": tmp_path / "tokenizer", "min_genes": 8}
    options = {"tasks": tasks, "style": style, "gene_sets": None, "token_budget": budget}
    wanted = config(data_dir, tmp_path, **options)
    manifest = corpus.run(wanted, cells, tmp_path / "corpus")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    longest: Counter[Task] = Counter()
    for record in read_prompts(tmp_path / "corpus").records:
        ids = tokenizer([record.prompt, record.target], add_special_tokens=False)["input_ids"]
        total = len(ids[0]) + len(ids[1]) + 1
        assert total <= most
        longest[record.task] = max(longest[record.task], total)
    shortened = set(manifest.num_shortened)
    assert Task.TISSUE_ANNOTATION in shortened
    # A sentence more or less is a gene of each of some four cells: near the line, not far below.
    assert all(longest[task] > 0.9 * most for task in shortened)


def test_the_words_of_cell2sentence_are_the_packages(
    cells: Path, data_dir: Path, tmp_path: Path
) -> None:
    tasks = [Task.CELL_TYPE_ANNOTATION, Task.CELL_GENERATION, Task.TISSUE_ANNOTATION]
    wanted = config(data_dir, tmp_path, tasks=tasks, style="cell2sentence", gene_sets=None)
    manifest = corpus.run(wanted, cells, tmp_path / "corpus")
    assert manifest.phrasings == {task: load_c2s_style(task).prompts for task in tasks}
    read = read_prompts(tmp_path / "corpus")
    table = read_cells(cells, ["cell_type"])
    row_of = {cell_id: row for row, cell_id in enumerate(table.cell_ids)}
    for record in read.records:
        if record.task is Task.TISSUE_ANNOTATION:
            assert record.target in {" blood.", " spleen."}
            continue
        row = row_of[record.context_id or record.target_id]
        genes = [read.vocabulary.symbols[g] for g in table.genes_of(row)[:20]]
        cell_type = str(table.obs["cell_type"][row])
        style = load_c2s_style(record.task)
        facts = {
            "num_genes": 20,
            "organism": "Homo sapiens",
            "cell_sentence": " ".join(genes),
            "cell_type": cell_type,
        }
        text = style.render(facts, choice=style.pick(record.prompt_id, wanted.seed))
        assert record.prompt == text.prompt.rstrip()
        assert record.target == f" {text.response}"


def test_what_the_stage_cannot_do_is_said_before_anything_is_written(
    cells: Path, data_dir: Path, tmp_path: Path
) -> None:
    alone: Mapping[str, object] = {"multi_cell": None, "gene_sets": None}
    both = [Task.CELL_GENERATION, Task.SINGLE_CELL_LANGUAGE_MODELLING]
    multi_cell = {"tissue_column": "tisue"}
    cases = [
        (
            {**alone, "tasks": both, "style": "cell2sentence"},
            ConfigError,
            "cell2sentence has prompts for .* got single_cell_language_modelling",
        ),
        (
            {"tasks": ["tissue_annotation"], "multi_cell": multi_cell, "gene_sets": None},
            DataError,
            r"the obs column must be one of .*got 'tisue'.*did you mean 'tissue'",
        ),
        (
            {
                **alone,
                "tasks": ["cell_generation"],
                "token_budget": {"max_tokens": 99, "tokenizer": tmp_path / "none"},
            },
            MissingFileError,
            "token_budget.tokenizer must be a folder, got .*none",
        ),
        (
            {
                **alone,
                "tasks": ["cell_generation"],
                "token_budget": {"max_tokens": 99, "tokenizer": tmp_path},
            },
            DataError,
            "a tokenizer folder must load, got ",
        ),
    ]
    for changes, error, message in cases:
        with pytest.raises(error, match=message):
            corpus.run(config(data_dir, tmp_path, **changes), cells, tmp_path / "corpus")
        assert not (tmp_path / "corpus").exists()
