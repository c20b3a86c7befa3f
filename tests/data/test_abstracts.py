"""Tables of studies and their abstracts: three formats, and what is wrong in them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2s_rl.data.abstracts import read_abstracts
from c2s_rl.errors import ConfigError, DataError, MissingFileError

TEXTS = {"GSE1": "Blood was measured.", "GSE2": "Liver was, too."}


def test_the_three_formats_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(
        "Study\tAbstract\nGSE1\tBlood was\u00a0measured.\n\nGSE2\tLiver was, too. \n"
    )
    rows = [{"study": study, "abstract": text, "year": 2018} for study, text in TEXTS.items()]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.tsv", "a.jsonl", "a.parquet"):
        assert read_abstracts(tmp_path / name) == TEXTS


def test_line_breaks_of_an_abstract_become_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"study": "s", "abstract": "Aims.\\n  Methods. "}\n')
    assert read_abstracts(tmp_path / "a.jsonl") == {"s": "Aims. Methods."}


def test_path_may_use_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tsv").write_text("s\tText.\n")
    monkeypatch.setenv("STUDIES", str(tmp_path))
    assert read_abstracts(Path("${STUDIES}/a.tsv")) == {"s": "Text."}
    monkeypatch.delenv("STUDIES")
    with pytest.raises(ConfigError, match="got no STUDIES"):
        read_abstracts(Path("${STUDIES}/a.tsv"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "s\tText.\textra\n", "separated by a tab, got 3 columns in row 1"),
        ("a.tsv", "one column\n", "separated by a tab, got 1 columns in row 1"),
        ("a.tsv", "s\t \n", "must have study and abstract, got 's' in row 1"),
        ("a.tsv", "s\tA.\ns\tB.\n", "a study must stand once, got 's' again in row 2"),
        ("a.tsv", "study\tabstract\n", "must hold at least one, got none in"),
        ("a.csv", "s,Text.\n", r"must be \.tsv, \.jsonl or \.parquet, got .*a\.csv"),
        ("a.jsonl", "{", "each line must be JSON, got .* in row 1 of"),
        ("a.jsonl", "[1]\n", r"each line must be a JSON object, got \[1\]"),
        ("a.jsonl", '{"study": "s"}\n', r"must have texts study and abstract, got \['study'\]"),
        ("a.parquet", "no parquet", "abstracts must be whole Parquet, got"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_abstracts(path)
    assert name in str(error.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"a table of abstracts must be .*none\.tsv"):
        read_abstracts(tmp_path / "none.tsv")
