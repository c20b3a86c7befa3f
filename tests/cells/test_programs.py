"""Gene programs: the shipped sets and sets from a user's GMT file."""

import logging

import anndata
import pytest

from c2s_rl.cells.programs import (
    GeneProgram,
    find_program,
    load_program,
    program_indices,
    read_gmt,
)
from c2s_rl.cells.vocabulary import Duplicates, GeneCase, Vocabulary, build_vocabulary
from c2s_rl.errors import ConfigError, DataError, MissingFileError

SHIPPED = {
    "hallmark_apoptosis": (161, 147),
    "hallmark_interferon_alpha_response": (97, 94 + 1),
    "hallmark_interferon_gamma_response": (200, 193),
    "reactome_class_i_mhc_mediated_antigen_processing_presentation": (381, 329 + 5),
}
"""Name: (genes of the set, genes of it among the Kang columns), from the data README; and those
that they have under a former name: FAM46A (TENT5A); TCEB1, TCEB2, SHFM1, VPRBP, FCGR1B."""


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
    assert "absent: 'X'" in caplog.text


def test_a_program_without_known_genes_is_refused():
    vocabulary = Vocabulary(symbols=("Isg15",), original=("Isg15",))
    with pytest.raises(DataError, match=r"none of the 1 of P \('ISG15'\).*check gene_case"):
        program_indices(GeneProgram("P", ("ISG15",), ""), vocabulary)


def vocabulary_of(*symbols):
    return Vocabulary(symbols=symbols, original=symbols)


@pytest.mark.parametrize(
    ("written", "in_program"), [("DDX58", "RIGI"), ("RIGI", "DDX58"), ("MARCHF1", "MARCH1")]
)
def test_a_renamed_gene_is_found_in_either_direction(written, in_program):
    genes = find_program(GeneProgram("P", ("MX1", in_program), ""), vocabulary_of("MX1", written))
    assert genes.indices.tolist() == [0, 1]
    assert genes.renamed == {in_program: written}
    assert genes.coverage == 1.0


def test_a_name_that_could_mean_two_genes_is_reported_and_not_guessed():
    # HGNC: B3GNT1 was the symbol of B3GNT2 and of B4GAT1.
    program = GeneProgram("P", ("MX1", "B3GNT1", "NOGENE"), "")
    genes = find_program(program, vocabulary_of("MX1", "B4GAT1"))
    assert genes.indices.tolist() == [0]
    assert (genes.ambiguous, genes.absent) == (("B3GNT1",), ("NOGENE",))
    assert genes.coverage == pytest.approx(1 / 3)


def test_two_former_names_in_one_vocabulary_are_not_guessed():
    # Both were symbols of MARCHF7.
    genes = find_program(
        GeneProgram("P", ("MX1", "MARCHF7"), ""), vocabulary_of("MX1", "AXOT", "MARCH7")
    )
    assert (genes.indices.tolist(), genes.ambiguous) == ([0], ("MARCHF7",))


def test_a_symbol_of_the_vocabulary_is_taken_as_it_is():
    # AK3 is a gene today and was AK4's symbol once.
    genes = find_program(GeneProgram("P", ("AK3", "MX1"), ""), vocabulary_of("AK3", "MX1", "AK4"))
    assert (genes.indices.tolist(), genes.renamed) == ([0, 1], {})


def test_a_list_of_symbols_is_a_program(tmp_path):
    (tmp_path / "mine.txt").write_text("MX1\nISG15\nMX1\n\n")
    program = load_program(str(tmp_path / "mine.txt"))
    assert (program.name, program.symbols) == ("mine", ("MX1", "ISG15"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match=r"must hold symbols, one a line, got none in .*empty"):
        load_program(str(tmp_path / "empty.txt"))
    with pytest.raises(MissingFileError, match=r"a gene list must exist, got none\.txt"):
        load_program("none.txt")


L1000_APOPTOSIS = (
    "APP BAX BID BNIP3L BRCA1 CASP2 CASP3 CASP7 CCNA1 CCND1 CD44 CDC25B CDK2 CDKN1A CDKN1B CFLAR "
    "DFFA DNM1L EBP ERBB2 ERBB3 FAS GADD45A GADD45B GNA15 HMOX1 HSPB1 IER3 IGF2R IL1B JUN MMP2 "
    "PAK1 PMAIP1 PTK2 SATB1 SPTAN1 SQSTM1 TIMP2 TOP2A"
)


@pytest.mark.parametrize("column", [2, 3], ids=["LINCS", "HGNC"])
def test_the_landmarks_hold_the_papers_40_apoptosis_genes(column, data_dir):
    rows = (data_dir / "l1000" / "landmark_978.tsv").read_text().splitlines()[1:]
    vocabulary = vocabulary_of(*(row.split("\t")[column] for row in rows))
    indices = program_indices(load_program("hallmark_apoptosis"), vocabulary)
    assert sorted(vocabulary.symbols[i] for i in indices) == L1000_APOPTOSIS.split()
