"""Pairs of genes from a file: both questions, negatives, and no pair on both sides."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.cell_source import TableSource
from c2s_rl.data.corpus import Corpus, build_corpus
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.downstream_sections import INTERACTION_TASKS
from c2s_rl.data.interaction_drafts import read_interactions
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.prompts.render import load_all_templates
from c2s_rl.types import Split, Task

MakeSource = Callable[[Sequence[tuple[str, str, str, str]]], TableSource]
# The toy vocabulary is G0 to G11.
STAR = [("G0", f"G{i}") for i in range(1, 12)]
RING = [(f"G{i}", f"G{(i + 1) % 12}") for i in range(12)]


def write(folder: Path, pairs: Sequence[tuple[str, ...]], name: str = "pairs.tsv") -> Path:
    path = folder / name
    path.write_text("".join("\t".join(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


def build(source_of: MakeSource, path: Path, *, seed: int = 0, **interactions: object) -> Corpus:
    config = CorpusConfig.model_validate(
        {
            "tasks": list(INTERACTION_TASKS),
            "gene_interactions": {"path": str(path), **interactions},
            "seed": seed,
        }
    )
    source = source_of([("c1", "T", "", ""), ("c2", "T", "", "")])
    return build_corpus(source, config, load_all_templates(config.tasks, {}))


def asked(corpus: Corpus, answer: str, side: Split | None = None) -> list[tuple[str, ...]]:
    """Sorted pairs of the yes/no questions with this answer."""
    return [
        tuple(record.prompt_id.split("/")[1:])
        for record in corpus.records
        if record.task is Task.GENE_INTERACTION
        and record.target == f" {answer}"
        and side in (None, record.split)
    ]


def test_each_pair_is_asked_once_and_each_has_a_pair_that_is_not_in_the_file(
    source_of: MakeSource, tmp_path: Path
) -> None:
    corpus = build(source_of, write(tmp_path, RING))
    positive, negative = asked(corpus, "Yes"), asked(corpus, "No")
    assert sorted(positive) == sorted(tuple(sorted(pair)) for pair in RING)
    assert len(set(negative)) == len(negative) == 12
    assert not set(positive) & set(negative)
    assert all(a < b for a, b in negative)
    for record in corpus.records:
        if record.task is Task.GENE_INTERACTION:
            genes = set(re.findall(r"\bG\d+\b", record.prompt))
            assert genes == set(record.prompt_id.split("/")[1:])
            assert record.condition == record.target.strip()
    # The order of the two is drawn: neither alphabet nor file tells.
    first = Counter(
        record.prompt.find(a) < record.prompt.find(b)
        for record in corpus.records
        if record.task is Task.GENE_INTERACTION
        for a, b in [[f"{gene}" for gene in record.prompt_id.split("/")[1:]]]
    )
    assert len(first) == 2


def test_partners_of_a_gene_are_listed_from_both_ends(
    source_of: MakeSource, tmp_path: Path
) -> None:
    corpus = build(source_of, write(tmp_path, STAR), max_partners=4)
    lists = {
        record.prompt_id.split("/")[1]: record
        for record in corpus.records
        if record.task is Task.GENE_PARTNERS
    }
    assert len(lists) == 12
    assert all(lists[f"G{i}"].target == " G0" for i in range(1, 12))
    hub = lists["G0"]
    assert len(set(hub.target.split())) == 4
    assert set(hub.target.split()) < {f"G{i}" for i in range(1, 12)}
    assert [f"G{i}" for i in hub.target_genes_K.tolist()] == hub.target.split()
    assert corpus.dropped["partners_over_cap"] == 11 - 4
    # No pair is left that keeps G0, but there is one that keeps the other gene.
    assert len(asked(corpus, "No")) == 11


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(range(12)), st.sampled_from(range(12))).filter(
            lambda pair: pair[0] != pair[1]
        ),
        min_size=6,
        max_size=12,
    ),
    seed=st.integers(0, 99),
)
def test_no_pair_stands_on_both_sides_whichever_gene_is_first(
    source_of: MakeSource,
    tmp_path: Path,
    pairs: list[tuple[int, int]],
    seed: int,
) -> None:
    rows = [(f"G{a}", f"G{b}") for a, b in pairs]
    distinct = {tuple(sorted(row)) for row in rows}
    # Among 8 genes and 12 pairs there is always another pair to deny.
    assume(len({gene for row in rows for gene in row}) >= 8)
    corpus = build(source_of, write(tmp_path, rows), seed=seed, test_fraction=0.3)
    both = [set(asked(corpus, "Yes", side)) | set(asked(corpus, "No", side)) for side in Split]
    assert not both[0] & both[1]
    for side in Split:
        assert len(asked(corpus, "Yes", side)) == len(asked(corpus, "No", side))
    listed = {
        side: {
            tuple(sorted((record.prompt_id.split("/")[1], partner)))
            for record in corpus.records
            if record.task is Task.GENE_PARTNERS and record.split is side
            for partner in record.target.split()
        }
        for side in Split
    }
    assert not listed[Split.TRAIN] & listed[Split.TEST]
    assert listed[Split.TRAIN] | listed[Split.TEST] == distinct
    assert len(listed[Split.TEST]) == max(1, round(0.3 * len(distinct)))
    assert set(asked(corpus, "Yes", Split.TEST)) <= listed[Split.TEST]
    # Either task counts them.
    assert corpus.dropped.get("interactions_repeated", 0) == 2 * (len(rows) - len(distinct))
    # Neither order of the rows nor of the genes in them changes anything.
    turned = write(tmp_path, [row[::-1] for row in reversed(rows)], "pairs_turned.tsv")
    again = build(source_of, turned, seed=seed, test_fraction=0.3)
    assert [(r.prompt_id, r.prompt, r.target) for r in again.records] == [
        (r.prompt_id, r.prompt, r.target) for r in corpus.records
    ]


def test_rows_that_are_no_pair_of_known_genes_are_counted(
    source_of: MakeSource, tmp_path: Path
) -> None:
    rows = [
        ("Official Symbol A", "Official Symbol B"),  # a header
        ("G1", "G2"), ("G2", "G1"), ("G3", "G3"), ("G1", "XYZ"), ("G4", "G5"), ("G1", "G2"),
    ]  # fmt: skip
    corpus = build(source_of, write(tmp_path, rows))
    assert sorted(asked(corpus, "Yes")) == [("G1", "G2"), ("G4", "G5")]
    counted = {name: num for name, num in corpus.dropped.items() if name.startswith("interactions")}
    assert {name: num / len(INTERACTION_TASKS) for name, num in counted.items()} == {
        "interactions_not_in_vocabulary": 1,
        "interactions_with_itself": 1,
        "interactions_repeated": 2,
    }


def test_a_gene_is_found_under_its_other_name(tmp_path: Path) -> None:
    # DDX58 is RIGI today (HGNC).
    vocabulary = Vocabulary(("MAVS", "RIGI"), ("MAVS", "RIGI"))
    path = write(tmp_path, [("DDX58", "MAVS"), ("RIGI", "MAVS")])
    dropped: Counter[str] = Counter()
    assert read_interactions(path, vocabulary, dropped) == (("MAVS", "RIGI"),)
    assert dropped == {"interactions_repeated": 1}


def test_pairs_that_leave_nothing_to_deny_are_counted(
    source_of: MakeSource, tmp_path: Path
) -> None:
    # G1-G2, G1-G3, G2-G3 is all there is among three genes.
    rows = [("G1", "G2"), ("G1", "G3"), ("G2", "G3")]
    message = r"got none for gene_interaction .*3 interactions_without_negative"
    with pytest.raises(DataError, match=message):
        build(source_of, write(tmp_path, rows))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([("G1", "G2", "0.9")], {}, "separated by '\\t', got 3 columns in row 1 of"),
        ([("G1", "G2"), ("G1", " ")], {}, "a row must name two genes, got one in row 2 of"),
        ([], {}, "must hold at least one pair, got none in"),
        (
            [("Gene A", "Gene B"), ("g1", "g2")],
            {},
            "two different genes of the vocabulary, got none in 1 rows of",
        ),
        ([("G1", "G2")], {"test_fraction": 0.5}, "must divide 2 pairs or more, got 1"),
    ],
)
def test_a_file_that_is_no_list_of_pairs_is_refused(
    source_of: MakeSource,
    tmp_path: Path,
    rows: list[tuple[str, ...]],
    options: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        build(source_of, write(tmp_path, rows), **options)


def test_a_missing_file_is_named(source_of: MakeSource, tmp_path: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"gene_interactions\.path must be a file that exists"
    ):
        build(source_of, tmp_path / "none.tsv")
