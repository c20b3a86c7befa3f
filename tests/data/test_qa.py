"""Questions from a file: columns, sides, drawn and named cells, prompts, leaks."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2s_rl.cells.sentence import write_sentence
from c2s_rl.data.cell_source import TableSource
from c2s_rl.data.corpus import Corpus, build_corpus
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.qa_file import read_questions
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.evaluation.text_metrics import keyword_recall
from c2s_rl.prompts.render import load_all_templates
from c2s_rl.types import PromptRecord, Split, Task
from tests.conftest import PROJECT

Cells = Sequence[tuple[str, str, str, str]]
MakeSource = Callable[[Cells], TableSource]
Row = Mapping[str, object]

SHIPPED = PROJECT / "configs" / "data" / "scqa_pbmc.jsonl"
B_CELL: Row = {
    "id": "b",
    "question": "What are these?",
    "answer": "B cells.",
    "keywords": ["B cells"],
    "cell_type": "B cell",
    "study": "s1",
}
T_CELL: Row = {
    "id": "t",
    "question": "And these?",
    "answer": "T cells.",
    "cell_type": "T cell",
    "study": "s2",
}


def write(folder: Path, *rows: Row) -> Path:
    path = folder / "qa.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config(
    path: Path, *, qa: Mapping[str, object] | None = None, **settings: object
) -> CorpusConfig:
    return CorpusConfig.model_validate(
        {"tasks": ["question_answering"], "num_genes": 4, "qa": {"path": path, **(qa or {})}}
        | settings
    )


def build(source: TableSource, corpus: CorpusConfig) -> Corpus:
    return build_corpus(source, corpus, load_all_templates(corpus.tasks, corpus.templates))


def by_question(corpus: Corpus) -> dict[str, list[PromptRecord]]:
    found: dict[str, list[PromptRecord]] = {}
    for record in corpus.records:
        found.setdefault(record.prompt_id.split("/")[1], []).append(record)
    return found


def test_a_question_is_asked_about_drawn_cells_of_its_type(
    source_of: MakeSource, toy_cells: Cells, tmp_path: Path
) -> None:
    source = source_of(toy_cells)
    draws = {"cells_per_question": 3, "draws": 5}
    corpus = build(source, config(write(tmp_path, B_CELL, T_CELL), qa=draws))
    asked = by_question(corpus)
    assert {name: len(records) for name, records in asked.items()} == {"b": 5, "t": 5}
    row_of = {cell_id: row for row, cell_id in enumerate(source.table.cell_ids)}
    for record in asked["b"]:
        assert record.task is Task.QUESTION_ANSWERING
        assert (record.target, record.keywords) == (" B cells.", ("B cells",))
        assert (record.condition, record.split) == ("B cell", Split.TRAIN)
        assert "What are these?" in record.prompt
        shown = [line for line in record.prompt.splitlines() if line.startswith("Cell ")]
        assert len(shown) == 3
        first = source.table.genes_of(row_of[record.context_id])
        assert shown[0] == f"Cell 1: {write_sentence(first, source.vocabulary, 4)}"
        assert record.context_id.startswith("B cell")
    assert len({record.prompt for record in asked["b"]}) == 5


def test_the_order_of_cells_and_questions_changes_nothing(
    source_of: MakeSource, toy_cells: Cells, tmp_path: Path
) -> None:
    one = build(source_of(toy_cells), config(write(tmp_path, B_CELL, T_CELL)))
    other = build(source_of(toy_cells[::-1]), config(write(tmp_path, T_CELL, B_CELL)))
    assert [(r.prompt_id, r.prompt) for r in one.records] == [
        (r.prompt_id, r.prompt) for r in other.records
    ]


def test_a_held_out_study_is_asked_about_cells_of_the_test_side_only(
    source_of: MakeSource, toy_cells: Cells, tmp_path: Path
) -> None:
    split = {"split": {"test_fraction": 0.5}}
    qa = {"split": {"holdout": {"study": ["s2"]}}, "draws": 4}
    corpus = build(source_of(toy_cells), config(write(tmp_path, B_CELL, T_CELL), qa=qa, **split))
    asked = by_question(corpus)
    assert {r.split for r in asked["b"]} == {Split.TRAIN}
    assert {r.split for r in asked["t"]} == {Split.TEST}
    # The cells' own line, drawn by the same seed for another task of the same corpus.
    cells = build(
        source_of(toy_cells), CorpusConfig.model_validate({"num_genes": 4, **split})
    ).records
    side_of = {record.target_id: record.split for record in cells}
    assert all(side_of[r.context_id] is r.split for r in corpus.records)


def test_questions_about_named_cells_follow_them_and_mixed_ones_are_left_out(
    source_of: MakeSource, toy_cells: Cells, tmp_path: Path
) -> None:
    cells = build(
        source_of(toy_cells),
        CorpusConfig.model_validate({"num_genes": 4, "split": {"test_fraction": 0.5}}),
    ).records
    train, test = (
        sorted(r.target_id for r in cells if r.split is side) for side in (Split.TRAIN, Split.TEST)
    )
    rows = [
        {"id": "mixed", "question": "q1", "answer": "a", "cells": [train[0], test[0]]},
        {"id": "held", "question": "q2", "answer": "a", "cells": test[:2]},
        {"id": "seen", "question": "q3", "answer": "a", "cells": train[:2]},
    ]
    corpus = build(
        source_of(toy_cells), config(write(tmp_path, *rows), split={"test_fraction": 0.5})
    )
    assert {r.prompt_id.split("/")[1]: r.split for r in corpus.records} == {
        "held": Split.TEST,
        "seen": Split.TRAIN,
    }
    assert corpus.dropped["cells_of_both_sides"] == 1
    assert {r.condition for r in corpus.records} == {"questions"}


def test_sentences_and_context_are_shown_as_they_are(
    source_of: MakeSource, toy_cells: Cells, tmp_path: Path
) -> None:
    row = {
        "question": "Which?",
        "answer": "None.",
        "sentences": ["G1 G2", "G3"],
        "context": "A study of toys.",
    }
    (record,) = build(source_of(toy_cells), config(write(tmp_path, row))).records
    assert record.prompt.startswith("A study of toys.\n")
    assert "Cell 1: G1 G2\nCell 2: G3" in record.prompt
    assert (record.context_id, record.prompt_id) == ("", "question_answering/1/0")


def test_too_few_cells_of_a_type_are_counted(
    source_of: MakeSource, toy_cells: Cells, tmp_path: Path
) -> None:
    few = [cell for cell in toy_cells if cell[1] == "T cell"] + list(toy_cells[-1:])
    corpus = build(source_of(few), config(write(tmp_path, B_CELL, T_CELL), qa={"draws": 2}))
    assert corpus.dropped["too_few_cells"] == 2
    assert len(corpus.records) == 2


def test_parquet_and_jsonl_hold_the_same_questions(tmp_path: Path) -> None:
    rows = [dict(B_CELL), dict(T_CELL) | {"keywords": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "qa.parquet")
    assert read_questions(tmp_path / "qa.parquet") == read_questions(write(tmp_path, *rows))


def test_the_same_question_with_its_answer_may_not_be_on_both_sides(
    source_of: MakeSource, toy_cells: Cells, tmp_path: Path
) -> None:
    twin = dict(B_CELL) | {"id": "twin", "study": "s2"}
    qa = {"split": {"holdout": {"study": ["s2"]}}}
    leaky = config(write(tmp_path, B_CELL, twin), qa=qa, split={"test_fraction": 0.5})
    with pytest.raises(DataError, match=r"must not share a question with its answer, got 'What"):
        build(source_of(toy_cells), leaky)


def test_test_questions_need_test_cells(
    source_of: MakeSource, toy_cells: Cells, tmp_path: Path
) -> None:
    qa = {"split": {"holdout": {"study": ["s2"]}}}
    with pytest.raises(DataError, match="test questions are shown cells of the test side"):
        build(source_of(toy_cells), config(write(tmp_path, B_CELL, T_CELL), qa=qa))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": ""}, r"a question must have a answer, got '' in row 1"),
        ({"question": None}, r"a question must have a question, got None in row 1"),
        ({"cells": ["x"]}, r"exactly one of cells, sentences, cell_type, got cells, cell_type"),
        ({"cell_type": ""}, r"exactly one of cells, sentences, cell_type, got none in row 1"),
        ({"keywords": "B cells"}, r"keywords must be a list of texts, got 'B cells' in row 1"),
        ({"keywords": [""]}, r"keywords must be a list of texts, got \[''\]"),
        ({"answer": ["B"]}, r"answer must be text, got \['B'\]"),
        ({"id": "t"}, r"ids of questions must differ, got 't' in rows 1 and 2"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, change: Row, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_questions(write(tmp_path, {**B_CELL, **change}, T_CELL))


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"qa\.path must be a file that exists"):
        read_questions(tmp_path / "none.jsonl")
    (tmp_path / "qa.csv").write_text("question,answer\n")
    with pytest.raises(DataError, match=r"must be \.jsonl or \.parquet"):
        read_questions(tmp_path / "qa.csv")
    (tmp_path / "qa.jsonl").write_text('{"question": "q"')
    with pytest.raises(DataError, match=r"each line must be JSON, got .* in line 1"):
        read_questions(tmp_path / "qa.jsonl")
    (tmp_path / "qa.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match=r"each line must be a JSON object, got \[1\]"):
        read_questions(tmp_path / "qa.jsonl")
    (tmp_path / "qa.jsonl").write_text("")
    with pytest.raises(DataError, match="must hold at least one, got none"):
        read_questions(tmp_path / "qa.jsonl")
    (tmp_path / "qa.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="questions must be whole Parquet"):
        read_questions(tmp_path / "qa.parquet")


def test_what_the_corpus_does_not_hold_is_named(
    source_of: MakeSource, toy_cells: Cells, tmp_path: Path
) -> None:
    source = source_of(toy_cells)
    with pytest.raises(
        DataError, match=r"cell_type of a question .*'B cel'; did you mean 'B cell'"
    ):
        build(source, config(write(tmp_path, {**B_CELL, "cell_type": "B cel"})))
    named = {"question": "q", "answer": "a", "cells": ["no-such-cell"]}
    with pytest.raises(DataError, match=r"must be in the cell shards .*'no-such-cell'"):
        build(source, config(write(tmp_path, named)))
    unknown = {"split": {"holdout": {"studie": ["s1"]}}}
    with pytest.raises(ConfigError, match=r"a column of qa\.split .*did you mean 'study'"):
        build(source, config(write(tmp_path, B_CELL), qa=unknown))


def test_task_and_section_go_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="qa must be given for task question_answering"):
        CorpusConfig.model_validate({"tasks": ["question_answering"]})
    with pytest.raises(ValueError, match="qa must be given for task question_answering"):
        CorpusConfig.model_validate({"qa": {"path": "x.jsonl"}})


def test_the_shipped_answers_name_their_own_keywords_and_no_question_names_a_type() -> None:
    items = read_questions(SHIPPED)
    assert len(items) == 180
    assert [i.question_id for i in items if keyword_recall(i.answer, i.keywords) != 1.0] == []
    assert all(item.keywords for item in items)
    assert len({item.cell_type for item in items}) == 9
    types = {"monocyte", "dendritic", "killer", "regulatory", "b cell", "t cell", "progenitor"}
    assert {q for q in {i.question.lower() for i in items} if any(t in q for t in types)} == set()
    # Each cell type has its own answer to each question, or the cells would not be needed.
    assert len({(item.question, item.answer) for item in items}) == 180
