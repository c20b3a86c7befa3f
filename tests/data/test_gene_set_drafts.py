"""Gene sets by name: both directions on one side, seeded order, genes of the vocabulary only."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from c2s_rl.data.cell_source import TableSource
from c2s_rl.data.corpus import Corpus, build_corpus
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.corpus_sections import NameForm
from c2s_rl.data.gene_set_drafts import readable
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.prompts.render import load_all_templates
from c2s_rl.types import Split, Task

Cells = Sequence[tuple[str, str, str, str]]
MakeSource = Callable[[Cells], TableSource]

NAMING, ENUMERATION = Task.GENE_SET_NAMING, Task.GENE_SET_ENUMERATION
# The toy cells' genes are G0 to G11.
SETS = {f"SET_{i}": [f"G{(i + j) % 12}" for j in range(5)] for i in range(10)}


def write_gmt(path: Path, sets: dict[str, list[str]]) -> Path:
    path.write_text("".join(f"{name}\tx\t" + "\t".join(s) + "\n" for name, s in sets.items()))
    return path


@pytest.fixture
def source(source_of: MakeSource, toy_cells: Cells) -> TableSource:
    return source_of(toy_cells)


def config(*paths: Path, **changes: object) -> CorpusConfig:
    gene_sets = {"paths": paths, "min_genes": 2, **changes}
    return CorpusConfig.model_validate({"tasks": [NAMING, ENUMERATION], "gene_sets": gene_sets})


def build(source: TableSource, corpus: CorpusConfig) -> Corpus:
    return build_corpus(source, corpus, load_all_templates(corpus.tasks, corpus.templates))


def test_a_set_is_named_and_enumerated_with_the_same_genes(
    source: TableSource, tmp_path: Path
) -> None:
    corpus = build(source, config(write_gmt(tmp_path / "toy.gmt", SETS)))
    assert len(corpus.records) == 20
    orders = 0
    for record in corpus.records:
        name = record.prompt_id.split("/")[1]
        said = name.lower().replace("_", " ")
        assert record.condition == "toy"
        assert (record.context_id, record.target_id) == ("", "")
        if record.task is NAMING:
            assert record.target == f" {said}"
            assert len(record.target_genes_K) == 0
            shown = [word for word in record.prompt.split() if word in SETS[name]]
            assert sorted(shown) == sorted(SETS[name])
        else:
            assert said in record.prompt
            genes = record.target.split()
            assert sorted(genes) == sorted(SETS[name])
            assert genes == [f"G{index}" for index in record.target_genes_K]
            orders += genes != SETS[name]
    # An order of 5 genes is the file's with probability 1/120; of 10 sets some differ.
    assert orders >= 8


def test_both_directions_of_a_set_stand_on_one_side(source: TableSource, tmp_path: Path) -> None:
    gmt = write_gmt(tmp_path / "toy.gmt", SETS)
    corpus = build(source, config(gmt, test_fraction=0.3, draws=3))
    side_of: dict[str, set[Split]] = {}
    for record in corpus.records:
        side_of.setdefault(record.prompt_id.split("/")[1], set()).add(record.split)
    assert all(len(sides) == 1 for sides in side_of.values())
    assert sum(sides == {Split.TEST} for sides in side_of.values()) == 3  # round(0.3 x 10)


def test_sets_of_another_order_of_lines_give_the_same_corpus(
    source: TableSource, tmp_path: Path
) -> None:
    one = write_gmt(tmp_path / "toy.gmt", SETS)
    (tmp_path / "turned").mkdir()
    other = write_gmt(tmp_path / "turned" / "toy.gmt", dict(reversed(SETS.items())))
    texts = [
        [(r.prompt_id, r.prompt, r.target) for r in build(source, config(path)).records]
        for path in (one, other)
    ]
    assert texts[0] == texts[1]


def test_genes_outside_the_vocabulary_are_left_out_or_kept(
    source: TableSource, tmp_path: Path
) -> None:
    sets = {"A": ["G0", "G1", "ALIEN1"], "B": ["G2", "ALIEN1", "ALIEN2"], "C": ["ALIEN1", "ALIEN2"]}
    gmt = write_gmt(tmp_path / "toy.gmt", sets)
    known = build(source, config(gmt))
    assert {r.prompt_id.split("/")[1] for r in known.records} == {"A"}
    # Per task: 1 of A, 2 of B, 2 of C; B and C keep fewer than two genes.
    assert known.dropped["genes_not_in_vocabulary"] == 2 * 5
    assert known.dropped["gene_sets_too_small"] == 2 * 2
    everything = build(source, config(gmt, only_vocabulary=False))
    targets = {
        r.prompt_id.split("/")[1]: (sorted(r.target.split()), sorted(r.target_genes_K.tolist()))
        for r in everything.records
        if r.task is ENUMERATION
    }
    assert targets == {
        "A": (["ALIEN1", "G0", "G1"], [0, 1]),
        "B": (["ALIEN1", "ALIEN2", "G2"], [2]),
        "C": (["ALIEN1", "ALIEN2"], []),
    }


def test_long_sets_are_sampled_anew_in_every_draw(source: TableSource, tmp_path: Path) -> None:
    gmt = write_gmt(tmp_path / "toy.gmt", {"ALL": [f"G{i}" for i in range(12)]})
    corpus = build(source, config(gmt, max_genes=5, draws=6))
    asked = [r for r in corpus.records if r.task is ENUMERATION]
    assert all(len(set(r.target.split())) == 5 for r in asked)
    assert len({frozenset(r.target.split()) for r in asked}) > 1
    assert corpus.dropped["genes_over_cap"] == 2 * 6 * 7
    assert any(" 5 " in r.prompt for r in asked)


def test_former_names_are_written_as_the_cells_write_them(tmp_path: Path) -> None:
    from c2s_rl.cells.vocabulary import Vocabulary
    from c2s_rl.data.corpus_sections import GeneSetConfig
    from c2s_rl.data.drafts import Material
    from c2s_rl.data.gene_set_drafts import draft_gene_sets

    # The hallmark sets still say WARS; HGNC approved WARS1.
    symbols = ("WARS1", "STAT1")
    gmt = write_gmt(tmp_path / "toy.gmt", {"A": ["WARS", "STAT1"]})
    corpus = CorpusConfig(tasks=(ENUMERATION,), gene_sets=GeneSetConfig(paths=(gmt,), min_genes=2))
    material = Material((), {}, Vocabulary(symbols, symbols))
    (draft,) = draft_gene_sets(material, ENUMERATION, corpus).drafts
    assert sorted(draft.answer.split()) == ["STAT1", "WARS1"]


def test_names_are_written_as_they_are_or_as_words() -> None:
    name = "HALLMARK_INTERFERON_ALPHA_RESPONSE"
    assert readable(name, NameForm.AS_IS) == name
    assert readable(name, NameForm.WORDS) == "hallmark interferon alpha response"


def test_the_sets_that_ship_are_taken_without_a_path(source_of: MakeSource) -> None:
    cells = [(f"c{i}", "T", "control", "d") for i in range(3)]
    with pytest.raises(DataError, match=r"none of 4 that has in .*hallmark\.gmt.*reactome\.gmt"):
        build(source_of(cells), config(min_genes=5))


def test_bad_gene_sets_are_named(source: TableSource, tmp_path: Path) -> None:
    alien = write_gmt(tmp_path / "alien.gmt", {"A": ["X1", "X2"]})
    with pytest.raises(DataError, match=r"min_genes = 2 genes .* none of 1 .*alien\.gmt; check"):
        build(source, config(alien))
    with pytest.raises(MissingFileError, match=r"a gene-set file must exist, got .*no\.gmt"):
        build(source, config(tmp_path / "no.gmt"))
    one = write_gmt(tmp_path / "one.gmt", {"A": ["G1", "G2"]})
    two = write_gmt(tmp_path / "two.gmt", {"A": ["G1", "G2"]})
    with pytest.raises(DataError, match=r"must be unique, got 'A' in .*one\.gmt and .*two\.gmt"):
        build(source, config(one, two))
    with pytest.raises(DataError, match=r"must divide 2 sets or more, got 1 with 0\.5"):
        build(source, config(one, test_fraction=0.5))
