"""Ids, former symbols and aliases become approved symbols; nothing is guessed, all is counted."""

import gzip

import numpy as np
import pytest

from c2s_rl.cells.vocabulary import Duplicates, GeneCase
from c2s_rl.data.source import SourceConfig, open_source
from c2s_rl.data.symbols import How, SymbolsConfig, resolve_symbols
from c2s_rl.errors import DataError, MissingFileError
from tests import format_files as files

pytestmark = pytest.mark.filterwarnings("ignore:.*zarr.*")  # what the next release will do

# RIGI was DDX58; OLD was A1's and B1's; MARCH1 is approved today and was MARCHF1's before.
TABLE = """symbol\tentrez_id\tensembl_gene_id\tprev_symbol\talias_symbol
RIGI\t23586\tENSG00000107201\tDDX58\tRIG-I
A1\t1\tENSG00000000001\tOLD|OLDER\tSHARED|AONE
B1\t2\tENSG00000000002\tOLD\tshared
MARCHF1\t55016\tENSG00000145416\tMARCH1\t
MARCH1\t99\tENSG00000000099\t\t
Isg15\t\tENSMUSG00000035692\t\t
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "hgnc.tsv.gz"
    path.write_bytes(gzip.compress(TABLE.encode()))
    return str(path)


def resolve(table, names, gene_ids=(), **options):
    config = SymbolsConfig(table=table, **options)
    return resolve_symbols(config, names, gene_ids, place="cells.h5ad")


# A name, what it becomes, how, candidates that are listed.
NAMES = {
    "approved": ("RIGI", "RIGI", How.APPROVED, ()),
    "previous": ("DDX58", "RIGI", How.PREVIOUS, ()),
    "previous of two": ("OLD", "OLD", How.AMBIGUOUS, ("A1", "B1")),
    "approved today": ("MARCH1", "MARCH1", How.APPROVED, ()),
    "alias": ("AONE", "AONE", How.UNKNOWN, ("A1",)),
    "unknown": ("XYZ", "XYZ", How.UNKNOWN, ()),
    "ensembl": ("ENSG00000107201", "RIGI", How.ID, ()),
    "ensembl with version": ("ENSG00000107201.14", "RIGI", How.ID, ()),
    "pseudoautosomal copy": ("ENSG00000107201.14_PAR_Y", "RIGI", How.ID, ()),
    "entrez": ("23586", "RIGI", How.ID, ()),
    "entrez in a column with gaps": ("23586.0", "RIGI", How.ID, ()),
    "mouse": ("ENSMUSG00000035692", "Isg15", How.ID, ()),
    "another case": ("isg15", "isg15", How.UNKNOWN, ()),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_are_looked_up_by_their_look(table, case):
    name, symbol, how, candidates = NAMES[case]
    gene = resolve(table, [name, "A1"]).genes[0]
    assert (gene.symbol, gene.how, gene.candidates) == (symbol, how, candidates)


def test_aliases_are_resolved_when_asked_for_and_one_fits(table):
    genes = resolve(table, ["AONE", "aone", "Shared"], aliases=True).genes
    assert [(gene.symbol, gene.how) for gene in genes] == [
        ("A1", How.ALIAS),
        ("A1", How.ALIAS),
        ("Shared", How.AMBIGUOUS),
    ]
    assert genes[2].candidates == ("A1", "B1")


def test_an_id_beside_the_name_goes_first_and_the_name_helps_where_it_fails(table):
    report = resolve(table, ["OLD", "DDX58", "XYZ"], ["2", "777", ""])
    assert [(g.symbol, g.how) for g in report.genes] == [
        ("B1", How.ID),
        ("RIGI", How.PREVIOUS),
        ("XYZ", How.UNKNOWN),
    ]


@pytest.mark.parametrize(
    ("kind", "resolved"),
    [("symbol", ["RIGI"]), ("ensembl", ["RIGI", "A1"]), ("entrez", ["RIGI", "B1"])],
)
def test_a_kind_that_is_named_is_the_only_one_that_counts(table, kind, resolved):
    names = ["DDX58", "ENSG00000000001", "2"]
    ids = {"symbol": (), "ensembl": ["ENSG00000107201", "", ""], "entrez": ["23586", "", ""]}[kind]
    report = resolve(table, names, ids, id=kind)
    found = [g.symbol for g in report.genes if g.how not in (How.UNKNOWN, How.AMBIGUOUS)]
    assert found == resolved


def test_unresolved_genes_are_kept_dropped_or_refused(table):
    names = ["RIGI", "XYZ", "OLD", "AONE"]
    assert [g.symbol for g in resolve(table, names).genes] == names
    dropped = resolve(table, names, unresolved="drop")
    assert [g.symbol for g in dropped.genes] == ["RIGI", "", "", ""]
    assert dropped.num_dropped == 3
    message = r"got 3 without \('XYZ', 'OLD \(A1 or B1\)', 'AONE \(A1\)'\) in cells.h5ad"
    with pytest.raises(DataError, match=message):
        resolve(table, names, unresolved="error")


def test_the_report_counts_and_lists(table, tmp_path):
    report = resolve(table, ["RIGI", "DDX58", "OLD", "XYZ"], ["", "", "", "1"])
    assert report.line == (
        "3 of 4 genes have an approved symbol (1 id, 1 approved, 1 previous, 1 ambiguous), 0 are "
        "left out; ambiguous: 'OLD (A1 or B1)'"
    )
    report.write(tmp_path / "symbols.tsv")
    assert (tmp_path / "symbols.tsv").read_text().splitlines() == [
        "name\tid\tsymbol\thow\tcandidates",
        "RIGI\t\tRIGI\tapproved\t",
        "DDX58\t\tRIGI\tprevious\t",
        "OLD\t\tOLD\tambiguous\tA1|B1",
        "XYZ\t1\tA1\tid\t",
    ]


@pytest.mark.parametrize(
    "header",
    [
        "pr_gene_id\tpr_gene_symbol\tpr_is_lm",  # GSE70138, GSE92742
        "gene_id\tgene_symbol\tensembl_id",  # CMap2020
        "NCBI Gene ID\tApproved symbol\tEnsembl gene ID",  # HGNC's custom download
    ],
)
def test_tables_of_other_makers_are_understood(tmp_path, header):
    path = tmp_path / "gene_info.txt"
    path.write_text(f"{header}\n5720\tPSME1\tENSG00000092010\n")
    assert resolve(str(path), ["5720"]).genes[0].symbol == "PSME1"


def test_quoted_lists_of_hgnc_are_read(tmp_path):
    path = tmp_path / "hgnc_complete_set.txt"
    path.write_text('hgnc_id\tsymbol\tprev_symbol\nHGNC:1\tA2\t"AA|AB"\n')
    assert [g.symbol for g in resolve(str(path), ["AA", "AB"]).genes] == ["A2", "A2"]


def test_a_table_that_is_none_is_refused(tmp_path, table):
    with pytest.raises(MissingFileError, match=r"must be a file that exists, got .*none\.tsv"):
        resolve(str(tmp_path / "none.tsv"), ["A"])
    (tmp_path / "t.tsv").write_text("gene\tname\nA\tB\n")
    with pytest.raises(
        DataError, match=r"column of symbols, one of symbol, .*, got 'gene', 'name'"
    ):
        resolve(str(tmp_path / "t.tsv"), ["A"])
    with pytest.raises(DataError, match=r"got none of 'X', 'Y' of cells\.h5ad in"):
        resolve(table, ["X", "Y"])


def open_with(path, scratch, **options):
    return open_source(SourceConfig(path=str(path), **options), scratch)


def test_dropped_genes_still_count_as_expression(tmp_path, table):
    # XYZ is left out of the vocabulary, but its counts were measured.
    adata = files.make_adata([[1, 3, 4], [2, 0, 6]], ["RIGI", "XYZ", "DDX58"])
    symbols = SymbolsConfig(table=table, unresolved="drop")
    with open_with(files.write_h5ad(adata, tmp_path), tmp_path, symbols=symbols) as cells:
        genes = cells.gene_columns(gene_case=GeneCase.KEEP, duplicates=Duplicates.SUM)
        assert cells.matrix.shape == (2, 3)
    assert genes.vocabulary.symbols == ("RIGI",)
    np.testing.assert_array_equal(genes.gene_of_column, [0, -1, 0])
    assert (genes.num_duplicate_columns, cells.num_unnamed_genes) == (1, 1)
    assert cells.symbol_report is not None


def test_two_genes_of_one_symbol_follow_the_rule_for_duplicates(tmp_path, table):
    adata = files.make_adata([[1, 3]], ["RIGI", "DDX58"])
    with (
        open_with(
            files.write_h5ad(adata, tmp_path), tmp_path, symbols=SymbolsConfig(table=table)
        ) as cells,
        pytest.raises(DataError, match="must be unique, got 1 repeated \\('RIGI'\\)"),
    ):
        cells.gene_columns(gene_case=GeneCase.KEEP, duplicates=Duplicates.ERROR)


@pytest.mark.parametrize("write", [files.write_h5ad, files.write_zarr])
def test_ids_of_a_var_column_are_used(tmp_path, table, write):
    adata = files.make_adata([[1, 3]], ["foo", "bar"])
    adata.var["ids"] = ["ENSG00000000002.3", None]
    symbols = SymbolsConfig(table=table, id_column="ids")
    with open_with(write(adata, tmp_path), tmp_path, symbols=symbols) as cells:
        assert cells.var_names == ("B1", "bar")
    wrong = SymbolsConfig(table=table, id_column="id")
    with (
        pytest.raises(DataError, match=r"one of 'gene_ids', 'ids', got 'id' .*did you mean 'ids'"),
        open_with(tmp_path / f"cells.{write.__name__[6:]}", tmp_path, symbols=wrong),
    ):
        pass


def test_ids_of_ten_x_are_at_hand(tmp_path, table):
    adata = files.make_adata([[1, 3], [0, 2]], ["foo", "bar"])  # ENSG00000000000 and ...1
    for path in (files.write_tenx_h5(adata, tmp_path), files.write_mtx(adata, tmp_path)):
        with open_with(path, tmp_path, symbols=SymbolsConfig(table=table)) as cells:
            assert cells.var_names == ("foo", "A1")


def test_ids_of_a_table_of_genes_by_cells_are_named(tmp_path, table):
    (tmp_path / "a.tsv").write_text("name\tid\tc1\tc2\nfoo\t1\t3\t0\nbar\t2\t1\t5\n")
    with open_with(
        tmp_path / "a.tsv",
        tmp_path,
        orientation="genes_by_cells",
        symbols=SymbolsConfig(table=table, id_column="id"),
    ) as cells:
        assert cells.var_names == ("A1", "B1")
        assert cells.cell_ids.read(0, 2).tolist() == ["c1", "c2"]


L1000 = ("LJP005_A375_24H_X1_B19_n377x978.gct.gz", "l1000_LJP005_A375_n377x978.gctx")


@pytest.mark.parametrize("name", L1000)
@pytest.mark.parametrize("symbol_column", [None, "pr_gene_symbol"])
def test_all_978_landmarks_resolve(data_dir, tmp_path, name, symbol_column):
    """By the Entrez ids that stand beside probe names or LINCS symbols."""
    symbols = SymbolsConfig(table=str(data_dir / "genes" / "hgnc_slim.tsv.gz"), unresolved="error")
    with open_with(
        data_dir / "l1000" / name,
        tmp_path,
        values="log2",
        symbol_column=symbol_column,
        symbols=symbols,
    ) as cells:
        rows = (data_dir / "l1000" / "landmark_978.tsv").read_text().splitlines()[1:]
        assert set(cells.var_names) == {row.split("\t")[3] for row in rows}
        assert cells.symbol_report is not None
        assert cells.symbol_report.num_resolved == 978


def test_landmarks_by_their_old_symbols_alone(data_dir):
    """Of the 48 renamed ones two can mean two genes, and one is known as an alias only."""
    rows = (data_dir / "l1000" / "landmark_978.tsv").read_text().splitlines()[1:]
    old, new = zip(*(row.split("\t")[2:4] for row in rows), strict=True)
    table = str(data_dir / "genes" / "hgnc_slim.tsv.gz")
    report = resolve(table, old)
    assert report.num_resolved == 975
    by_alias = resolve(table, old, aliases=True)
    assert by_alias.num_resolved == 976
    wrong = [
        (g.name, g.candidates) for g, n in zip(by_alias.genes, new, strict=True) if g.symbol != n
    ]
    # HDGFRP3 is an alias of HDGFL3 alone; the ids beside the symbols tell these two apart.
    assert wrong == [("CHP", ("RHOV", "CHP1")), ("B3GNT1", ("B3GNT2", "B4GAT1"))]


def test_the_file_of_bare_entrez_ids_is_named(data_dir, tmp_path):
    symbols = SymbolsConfig(table=str(data_dir / "genes" / "hgnc_slim.tsv.gz"), unresolved="drop")
    with open_with(
        data_dir / "l1000" / "slinky_demo_MCF7_n131x12328.gctx",
        tmp_path,
        values="log2",
        symbols=symbols,
    ) as cells:
        assert cells.symbol_report is not None
        rows = (data_dir / "l1000" / "landmark_978.tsv").read_text().splitlines()[1:]
        landmarks = {row.split("\t")[3] for row in rows}
        assert landmarks <= {gene.symbol for gene in cells.symbol_report.genes}
        assert cells.symbol_report.num_resolved > 12_000
