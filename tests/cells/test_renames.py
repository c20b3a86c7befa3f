"""Renamed symbols: both directions, nothing guessed, and the shipped table against HGNC."""

import gzip

import pytest

from c2s_rl.cells.renames import Renames, shipped_renames

# B was A's name before; C had the names D and E; X was the name of two genes; Y is a gene of its
# own today and was Z's name once.
RENAMES = Renames({"B": ("A",), "D": ("C",), "E": ("C",), "X": ("P", "Q"), "Y": ("Y", "Z")})


@pytest.mark.parametrize(
    ("symbol", "others"),
    [
        ("B", ("A",)),
        ("A", ("B",)),
        ("D", ("C", "E")),  # the present name first, then the other former one
        ("C", ("D", "E")),
        ("X", ()),  # ambiguous
        ("P", ()),  # its only former name is ambiguous
        ("Y", ()),  # in use today: not Z
        ("Z", ()),
        ("N", ()),  # never renamed
    ],
)
def test_other_names_of_a_gene(symbol, others):
    assert RENAMES.other_names(symbol) == others


def test_only_ambiguous_former_names_have_several_genes():
    assert RENAMES.possible_genes("X") == ("P", "Q")
    assert [RENAMES.possible_genes(symbol) for symbol in "BYN"] == [(), (), ()]


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("H1F0", "H1-0"),
        ("WARS", "WARS1"),
        ("DDX58", "RIGI"),
        ("MARCH1", "MARCHF1"),
        ("METTL7B", "TMT1B"),
    ],
)
def test_the_renamed_genes_of_the_hallmark_sets_are_known(former, present):
    assert present in shipped_renames().other_names(former)
    assert former in shipped_renames().other_names(present)


def test_the_shipped_table_is_hgncs(data_dir):
    approved, had = set(), {}
    with gzip.open(data_dir / "genes" / "hgnc_slim.tsv.gz", "rt") as file:
        next(file)
        for line in file:
            symbol, _, _, former, *_ = line.split("\t")
            approved.add(symbol)
            for name in filter(None, former.split("|")):
                had.setdefault(name, []).append(symbol)
    expected = {name: tuple([name] * (name in approved) + symbols) for name, symbols in had.items()}
    assert shipped_renames().approved_of == expected


def test_nearly_all_renamed_landmarks_are_found_by_symbol_alone(data_dir):
    rows = (data_dir / "l1000" / "landmark_978.tsv").read_text().splitlines()[1:]
    pairs = [row.split("\t")[2:4] for row in rows]
    renamed = [(old, new) for old, new in pairs if old != new]
    unresolved = {old for old, new in renamed if new not in shipped_renames().other_names(old)}
    # An ambiguous name, an alias that was never official, and one that HGNC does not list: their
    # Entrez ids tell (test_l1000_io.py).
    assert len(renamed) == 48
    assert unresolved == {"B3GNT1", "CHP", "HDGFRP3"}
