"""Prompt shards: what is written comes back, what is broken is refused."""

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.data import prompt_set
from c2s_rl.data.prompt_set import (
    ConditionCount,
    PromptManifest,
    read_prompts,
    write_prompts,
)
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.types import PromptRecord, Split, Task

SYMBOLS = ("NO", "SEPT1", "1e5", "HLA-DRA")
MANIFEST = PromptManifest(
    organism="Homo sapiens",
    num_genes=3,
    seed=0,
    counts=(
        ConditionCount(
            task=Task.CELL_GENERATION,
            split=Split.TRAIN,
            condition="B",
            num_prompts=2,
            num_cells=9,
        ),
    ),
    dropped={"no_label": 1},
    num_short_targets=0,
    cells_manifest_sha256="0" * 64,
    config={"num_genes": 3},
    phrasings={Task.CELL_GENERATION: ("A {cell_type}:",)},
    symbols=SYMBOLS,
    original=SYMBOLS,
)


def record(
    index: int,
    *,
    task: Task = Task.CELL_GENERATION,
    split: Split = Split.TRAIN,
    prompt: str = "Genes:",
    target: str = " NO SEPT1",
    genes: tuple[int, ...] = (0, 1),
    context: tuple[int, ...] = (),
) -> PromptRecord:
    return PromptRecord(
        prompt_id=f"p{index}",
        prompt=prompt,
        target=target,
        task=task,
        condition="B | IFN-β",
        context_id="c" if context else "",
        target_id=f"t{index}",
        split=split,
        target_genes_K=np.array(genes, dtype=np.int32),
        context_genes_K=np.array(context, dtype=np.int32),
        tier="unseen exposure" if split is Split.TEST else "",
    )


def same(first: PromptRecord, second: PromptRecord) -> bool:
    a, b = vars(first), vars(second)
    return all(
        np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype
        if isinstance(a[k], np.ndarray)
        else a[k] == b[k] and type(a[k]) is type(b[k])
        for k in a
    )


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)), st.sampled_from(list(Split))
        )
    )
)
def test_records_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[list[int], list[int], Split]]
) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    records = [
        record(
            i,
            genes=tuple(genes),
            context=tuple(context),
            split=split,
        )
        for i, (genes, context, split) in enumerate(rows)
    ]
    write_prompts(folder, records, MANIFEST)
    read = read_prompts(folder)
    assert len(read) == len(records)
    assert all(same(a, b) for a, b in zip(read.records, records, strict=True))
    assert read.manifest == MANIFEST
    assert read.vocabulary.symbols == SYMBOLS
    assert read.num_genes == 3


def test_files_are_cut_without_losing_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_set, "ROWS_PER_FILE", 4)
    records = [record(i, genes=(i % 4,)) for i in range(8)]
    write_prompts(tmp_path, records, MANIFEST)
    assert [p.name for p in sorted(tmp_path.glob("*.parquet"))] == [
        "prompts-00000.parquet",
        "prompts-00001.parquet",
    ]
    assert [r.prompt_id for r in read_prompts(tmp_path).records] == [f"p{i}" for i in range(8)]


def test_side_and_task_can_be_chosen(tmp_path: Path) -> None:
    both = [(task, split) for task in Task for split in Split]
    records = [record(i, task=task, split=split) for i, (task, split) in enumerate(both)]
    write_prompts(tmp_path, records, MANIFEST)
    test = read_prompts(tmp_path, split=Split.TEST).records
    assert [(r.task, r.split) for r in test] == [(task, Split.TEST) for task in Task]
    chosen = read_prompts(tmp_path, split=Split.TEST, task=Task.CELL_TYPE_ANNOTATION).records
    assert [(r.task, r.split) for r in chosen] == [(Task.CELL_TYPE_ANNOTATION, Split.TEST)]


def test_a_record_sent_to_another_process_takes_its_own_genes_only(tmp_path: Path) -> None:
    records = [record(i, genes=tuple([3] * 10_000)) for i in range(50)]
    write_prompts(tmp_path, records, MANIFEST)
    sent = pickle.dumps(read_prompts(tmp_path).records[7])
    assert len(sent) < 50_000  # 10,000 genes of 4 bytes, not 50 times as much


def test_shards_are_zstd_with_one_column_per_field(tmp_path: Path) -> None:
    write_prompts(tmp_path, [record(0)], MANIFEST)
    file = pq.ParquetFile(tmp_path / "prompts-00000.parquet")
    assert file.schema_arrow.names == [name.removesuffix("_K") for name in vars(record(0))]
    assert {file.metadata.row_group(0).column(i).compression for i in range(11)} == {"ZSTD"}


def test_manifest_keeps_gene_names_that_yaml_would_bend(tmp_path: Path) -> None:
    write_prompts(tmp_path, [record(0)], MANIFEST)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["symbols"] == ["NO", "SEPT1", "1e5", "HLA-DRA"]


@pytest.mark.parametrize(
    ("prompt", "target", "message"),
    [
        ("Genes: ", " NO", "a prompt must be text that ends without whitespace, got 'Genes: '"),
        ("", " NO", "a prompt must be text that ends without whitespace, got ''"),
        ("Genes:", "NO", "a target must start with exactly one space and end with none, got 'NO'"),
        ("Genes:", "  NO", "got '  NO' in p0"),
        ("Genes:", " NO\n", r"got ' NO\n' in p0"),
    ],
)
def test_joining_rule_is_kept(tmp_path: Path, prompt: str, target: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        write_prompts(tmp_path, [record(0, prompt=prompt, target=target)], MANIFEST)


def test_empty_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exactly one space and end with none, got ''"):
        write_prompts(tmp_path, [record(0, target="")], MANIFEST)


def test_missing_and_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"must hold manifest\.json, got none in"):
        read_prompts(tmp_path)
    write_prompts(tmp_path, [record(0)], MANIFEST)
    shard = tmp_path / "prompts-00000.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"must be whole Parquet, got .*prompts-00000\.parquet"):
        read_prompts(tmp_path)
    shard.unlink()
    with pytest.raises(MissingFileError, match=r"must hold prompts-\*\.parquet, got none in"):
        read_prompts(tmp_path)


def test_gene_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path, [record(0, genes=(0, 4))], MANIFEST)
    with pytest.raises(DataError, match="one of the 4 of the vocabulary, got index 4 in"):
        read_prompts(tmp_path)


def test_keywords_come_back(tmp_path: Path) -> None:
    words = ("B cells", "CD79A", "NO")
    write_prompts(tmp_path, [replace(record(0), keywords=words), record(1)], MANIFEST)
    assert [r.keywords for r in read_prompts(tmp_path).records] == [words, ()]


def test_shard_of_other_columns_is_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path, [record(0)], MANIFEST)
    shard = tmp_path / "prompts-00000.parquet"
    pq.write_table(pq.read_table(shard).drop_columns(["target"]), shard)
    with pytest.raises(DataError, match="a prompt shard must have the columns"):
        read_prompts(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 9}, "schema_version must be 3, got 9 in .*make the corpus again"),
        (
            {"schema_version": 2, "qa_sha256": ""},
            "schema_version must be 3, got 2 in .*make the corpus again",
        ),
        ({"num_genes": "many"}, "must follow its schema, got .* at num_genes in"),
        ({"extra": 1}, "must follow its schema, got .* at extra in"),
    ],
)
def test_manifest_of_another_kind_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_prompts(tmp_path, [record(0)], MANIFEST)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path)
