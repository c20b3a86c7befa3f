"""Names with texts from every format, and rows that are refused by number."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2s_rl.data.text_table import TextColumns, read_texts
from c2s_rl.errors import ConfigError, DataError, MissingFileError

CAPTIONS = TextColumns("cluster", "caption", "a table of captions")
ROWS = [("0", 'T cells, "naive"'), ("B cells", "Make antibodies."), ("0", "Two  words\there")]
EXPECTED = {"0": ('T cells, "naive"', "Two words here"), "B cells": ("Make antibodies.",)}


def test_every_format_gives_the_same_texts(tmp_path: Path) -> None:
    tsv = "\n".join(f"{name}\t{text.replace(chr(9), ' ')}" for name, text in ROWS)
    quoted = "\n".join(f'{name},"{text.replace(chr(34), chr(34) * 2)}"' for name, text in ROWS)
    jsonl = "\n".join(json.dumps({"cluster": name, "caption": text}) for name, text in ROWS)
    files = {
        "plain.tsv": tsv,
        "named.txt": f"Cluster\tcaption\n{tsv}\n\n",
        "named.csv": f"cluster,caption\n{quoted}",
        "a.jsonl": f"{jsonl}\n",
        "number.jsonl": jsonl.replace('"0"', "0"),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert read_texts(tmp_path / name, CAPTIONS) == EXPECTED, name
    columns = {"cluster": [n for n, _ in ROWS], "caption": [t for _, t in ROWS]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.parquet", CAPTIONS) == EXPECTED


def test_a_text_that_stands_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("0\tT cells\n0\tT  cells\n", encoding="utf-8")
    assert read_texts(tmp_path / "a.tsv", CAPTIONS) == {"0": ("T cells",)}


def test_a_path_may_use_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tsv").write_text("0\tT cells\n", encoding="utf-8")
    monkeypatch.setenv("CAPTION_FOLDER", str(tmp_path))
    assert read_texts(Path("${CAPTION_FOLDER}/a.tsv"), CAPTIONS) == {"0": ("T cells",)}
    monkeypatch.delenv("CAPTION_FOLDER")
    with pytest.raises(ConfigError, match="got no CAPTION_FOLDER"):
        read_texts(Path("${CAPTION_FOLDER}/a.tsv"), CAPTIONS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "0\tT\tcells\n", "separated by '\\t', got 3 columns in row 1 of"),
        ("a.tsv", "cluster\tcaption\n0 T cells\n", "got 1 columns in row 2 of"),
        ("a.csv", "0,T, cells\n", "separated by ',', got 3 columns in row 1 of"),
        ("a.tsv", "0\t \n", "a row must have cluster and caption, got '0' and ' ' in row 1 of"),
        ("a.tsv", "\n", "a table of captions must hold at least one row, got none in"),
        ("a.tsv", "cluster\tcaption\n", "must hold at least one row, got none in"),
        ("a.xlsx", "", "must be .tsv, .txt, .csv, .jsonl or .parquet, got"),
        ("a.jsonl", "{\n", "each line must be JSON, got Expecting property name"),
        ("a.jsonl", "[1]\n", "each line must be a JSON object, got [1] in row 1 of"),
        ("a.jsonl", '{"cluster": "0", "text": "T"}', "got ['cluster', 'text'] in row 1 of"),
        ("a.jsonl", '{"cluster": "0", "caption": 3}', "a row must have texts cluster and caption"),
        ("a.parquet", "no parquet", "a table of captions must be whole Parquet, got"),
    ],
)
def test_rows_that_are_no_pairs_are_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)):
        read_texts(tmp_path / name, CAPTIONS)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"0\t\xff\xfe\n")
    with pytest.raises(DataError, match="a table of captions must be UTF-8 text, got"):
        read_texts(tmp_path / "a.tsv", CAPTIONS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="a table of captions must be a file that exists"):
        read_texts(tmp_path / "none.tsv", CAPTIONS)
