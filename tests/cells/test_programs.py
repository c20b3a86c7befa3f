"""Gene programs: the shipped sets and sets from a user's GMT file."""

import logging

import anndata
import pytest

from c2s_rl.cells.programs import GeneProgram, load_program, program_indices, read_gmt
from c2s_rl.cells.vocabulary import Duplicates, GeneCase, Vocabulary, build_vocabulary
from c2s_rl.errors import ConfigError, DataError, MissingFileError

SHIPPED = {
    "hallmark_apoptosis": (161, 147),
    "hallmark_interferon_alpha_response": (97, 94),
    "hallmark_interferon_gamma_response": (200, 193),
}
"""Name: (genes of the set, genes of it among the Kang columns), from the data README."""


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets_have_their_published_size(name):
    assert len(load_program(name).symbols) == SHIPPED[name][0]


def test_shipped_sets_hold_their_best_known_genes():
    assert {"ISG15", "MX1", "IFIT3"} <= set(
        load_program("HALLMARK_INTERFERON_ALPHA_RESPONSE").symbols
    )
    assert {"CASP3", "BAX", "BID"} <= set(load_program("hallmark_apoptosis").symbols)


@pytest.mark.parametrize("name", SHIPPED)
def test_genes_present_in_the_kang_cells(name, data_dir):
    adata = anndata.read_h5ad(data_dir / "kang" / "kang_ifnb_2000x13215.h5ad", backed="r")
    columns = build_vocabulary(
        list(adata.var_names), gene_case=GeneCase.KEEP, duplicates=Duplicates.ERROR
    )
    indices = program_indices(load_program(name), columns.vocabulary)
    assert len(indices) == SHIPPED[name][1]
    assert indices.tolist() == sorted(indices.tolist())


def test_shipped_sets_are_those_of_the_shared_file(data_dir):
    shared = read_gmt(data_dir / "genesets" / "c2s_rl_genesets.gmt")
    for name in SHIPPED:
        assert load_program(name) == shared[name.upper()]


def test_a_set_of_a_users_file(tmp_path, monkeypatch):
    (tmp_path / "own.gmt").write_text("SET_A\tmine\tB\tA\tB\t\nSET_B\tmine\tC\n\n")
    monkeypatch.setenv("C2S_RL_DATA", str(tmp_path))
    program = load_program("${C2S_RL_DATA}/own.gmt:SET_A")
    assert program == GeneProgram(name="SET_A", symbols=("B", "A"), source="mine")


def test_an_unknown_set_names_the_nearest(tmp_path):
    path = tmp_path / "own.gmt"
    path.write_text("SET_A\tmine\tA\nOTHER\tmine\tB\n")
    with pytest.raises(
        ConfigError, match=r"one of 'OTHER', 'SET_A', got 'SET_AA' in .*; did you mean"
    ):
        load_program(f"{path}:SET_AA")
    with pytest.raises(ConfigError, match=r"one of 'hallmark_apoptosis', .* got 'apoptosis'"):
        load_program("apoptosis")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"a gene-set file must exist, got .*none\.gmt"):
        load_program(f"{tmp_path}/none.gmt:SET")


def test_an_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("C2S_RL_DATA", raising=False)
    with pytest.raises(ConfigError, match="got no C2S_RL_DATA"):
        load_program("${C2S_RL_DATA}/own.gmt:SET_A")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SET_A\tmine\n", r"got 'SET_A\\tmine' in .* line 1"),
        ("\nSET A B C\n", "line 2"),
        ("S\td\tA\nS\td\tB\n", "got 'S' twice"),
    ],
)
def test_broken_gmt_is_refused(tmp_path, text, message):
    path = tmp_path / "broken.gmt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_gmt(path)


def test_coverage_is_logged(caplog):
    vocabulary = Vocabulary(symbols=("A", "B", "C"), original=("A", "B", "C"))
    with caplog.at_level(logging.INFO):
        indices = program_indices(GeneProgram("P", ("C", "X", "A"), ""), vocabulary)
    assert indices.tolist() == [0, 2]
    assert "P: 2 of 3 genes" in caplog.text


def test_a_program_without_known_genes_is_refused():
    vocabulary = Vocabulary(symbols=("Isg15",), original=("Isg15",))
    with pytest.raises(DataError, match=r"none of the 1 of P \('ISG15'\).*check gene_case"):
        program_indices(GeneProgram("P", ("ISG15",), ""), vocabulary)
