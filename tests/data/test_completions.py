"""Completions written and read back: the same groups, scores and failures."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.completions import (
    SCHEMA,
    completion_files,
    read_completions,
    read_scores,
    write_completions,
)
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.types import ScoredGroup
from tests.reward_fixtures import VOCABULARY, make_group, make_record

RECORDS = {name: make_record(name, condition=f"of {name}") for name in ("p0", "p1")}
TEXTS = [" G0 G1 G1 NOGENE", "", "🧬 G7\n\x00é", "x" * 2**20]


def scored_groups():
    """Two groups of one prompt and one of another; a figure and a failure in one of them only."""
    first = ScoredGroup(
        make_group(TEXTS, RECORDS["p0"], version=3),
        (0.1 + 0.2, None, -1e-300, 5.0),
        {"tau": (0.1, None, 1 / 3, 5.0), "words": (1.0, 2.0, 3.0, 4.0)},
        {"tau/genes": (2.0, 0.0, 1.0, 0.0)},
        {"tau": (None, "raised: 'ohé'", None, None)},
    )
    second = ScoredGroup(
        make_group([" G1"], RECORDS["p0"]), (1.0,), {"tau": (0.5,), "words": (0.5,)}
    )
    third = ScoredGroup(
        make_group([" G2"] * 2, RECORDS["p1"]),
        (None, None),
        {"tau": (None, None), "words": (None, None)},
        {"tau/genes": (float("inf"), 1.0)},
    )
    return [first, second, third], [(1.0, 0.0, -0.5, 0.25), (0.0,), (0.0, 0.0)]


def as_plain(scored):
    """Everything that a scored group holds, comparable."""
    group = scored.group
    cells = [
        (c.genes_K.tolist(), c.num_words, c.num_duplicates, c.unknown, c.is_truncated)
        for c in group.cells_G
    ]
    completions = [
        (c.text, c.token_ids_T, c.rollout_logprobs_T, c.policy_version, c.is_truncated)
        for c in group.completions_G
    ]
    scores = (scored.rewards_G, scored.components, scored.diagnostics, scored.failures)
    return (group.record.prompt_id, group.prompt_token_ids, completions, cells, *scores)


def test_what_is_written_is_read_back_to_the_last_bit(tmp_path):
    scored, advantages = scored_groups()
    write_completions(tmp_path / "a" / "step.parquet", scored, advantages)
    stored = read_completions(tmp_path / "a" / "step.parquet", RECORDS, VOCABULARY)
    assert [as_plain(one) for one in stored.scored] == [as_plain(one) for one in scored]
    assert stored.advantages == tuple(advantages)
    assert all(one.group.record is RECORDS["p0"] for one in stored.scored[:2])


def test_the_columns_are_those_of_the_schema_and_of_the_rewards(tmp_path):
    scored, advantages = scored_groups()
    write_completions(tmp_path / "step.parquet", scored, advantages)
    schema = pq.read_schema(tmp_path / "step.parquet")
    extra = ["reward/tau", "reward/words", "diagnostic/tau/genes", "failure/tau"]
    assert schema.names == [*SCHEMA.names, *extra]
    assert schema.field("reward/words").type == pa.float64()


def test_no_completions_are_a_file_too(tmp_path):
    write_completions(tmp_path / "step.parquet", [], [])
    assert read_completions(tmp_path / "step.parquet", {}, VOCABULARY).scored == ()
    assert read_scores(tmp_path / "step.parquet").scores == {"total": []}


def test_scores_alone_are_read_with_their_prompts(tmp_path):
    write_completions(tmp_path / "step.parquet", *scored_groups())
    stored = read_scores(tmp_path / "step.parquet")
    assert stored.prompt_ids == ["p0"] * 5 + ["p1"] * 2
    assert stored.scores["tau"] == [0.1, None, 1 / 3, 5.0, 0.5, None, None]
    assert list(stored.scores) == ["tau", "words", "total"]


def test_files_of_a_folder_come_in_order(tmp_path):
    for name in ("step-00001", "step-00000"):
        write_completions(tmp_path / f"{name}.parquet", [], [])
    assert [p.name for p in completion_files(tmp_path)] == [
        "step-00000.parquet",
        "step-00001.parquet",
    ]
    assert completion_files(tmp_path / "step-00001.parquet") == [tmp_path / "step-00001.parquet"]


@pytest.mark.parametrize("name", ["none", ""])
def test_no_file_is_said(tmp_path, name):
    with pytest.raises(MissingFileError, match="must be a file or a folder of them, got"):
        completion_files(tmp_path / name)


def without(*names):
    return lambda table: table.drop_columns(list(names))


def other_genes(table):
    genes = [[5] if row == [0, 1] else row for row in table["genes"].to_pylist()]
    place = table.column_names.index("genes")
    return table.set_column(place, SCHEMA.field("genes"), pa.array(genes, pa.list_(pa.int32())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("token_ids", "group"), "the columns of this version, got no 'group', 'token_ids'"),
        (other_genes, "parse to the genes that were recorded.* prompt 'p0' in .*step.parquet"),
    ],
)
def test_a_file_that_does_not_fit_is_said(tmp_path, change, message):
    path = tmp_path / "step.parquet"
    write_completions(path, *scored_groups())
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(DataError, match=message):
        read_completions(path, RECORDS, VOCABULARY)


def test_a_prompt_of_another_corpus_is_named(tmp_path):
    write_completions(tmp_path / "step.parquet", *scored_groups())
    with pytest.raises(DataError, match="must be in the corpus, got 'p1' in"):
        read_completions(tmp_path / "step.parquet", {"p0": RECORDS["p0"]}, VOCABULARY)


def test_another_vocabulary_is_noticed(tmp_path):
    write_completions(tmp_path / "step.parquet", *scored_groups())
    symbols = tuple(reversed(VOCABULARY.symbols))
    with pytest.raises(DataError, match="the corpus has another vocabulary"):
        read_completions(tmp_path / "step.parquet", RECORDS, Vocabulary(symbols, symbols))


@pytest.mark.parametrize("read", [read_scores, lambda p: read_completions(p, {}, VOCABULARY)])
def test_a_torn_file_is_said(tmp_path, read):
    path = tmp_path / "step.parquet"
    write_completions(path, *scored_groups())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="must be whole Parquet"):
        read(path)


def test_a_table_of_something_else_is_said(tmp_path):
    pq.write_table(pa.table({"x": np.arange(3)}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="columns prompt_id and reward, got 'x'"):
        read_scores(tmp_path / "x.parquet")
