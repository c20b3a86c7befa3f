"""What to-anndata refuses, in one line and without leaving a file."""

import pytest

from c2s_rl.errors import ConfigError, DataError, MissingFileError, StageError
from c2s_rl.pipeline.to_anndata import ToAnnDataConfig, run
from tests.pipeline.shard_cases import lines, make_cells, read


def test_sentences_of_another_vocabulary_are_refused(tmp_path):
    cells = make_cells(tmp_path)
    with pytest.raises(
        DataError, match="got none among 2 words, such as 'ACTB', 'B2M', in"
    ) as info:
        read(tmp_path, cells, sentences=lines(tmp_path, "ACTB B2M"))
    assert "another case" not in str(info.value)
    with pytest.raises(DataError, match="the cells spell it in another case than 'g1'"):
        read(tmp_path, cells, sentences=lines(tmp_path, "g1 g2"))
    assert not (tmp_path / "out.h5ad").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"values": "stored"}, ConfigError, "values of sentences must be rank_model, got stored"),
        ({"column": "x"}, DataError, "one sentence a line and no columns, got x of"),
        ({"sentences": "gone.txt"}, MissingFileError, "sentences must be a file, a folder of Parq"),
        ({"cells": "gone"}, MissingFileError, "a cells folder must hold manifest.json, got none"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, options, error, message):
    cells = make_cells(tmp_path)
    with pytest.raises(error, match=message):
        read(tmp_path, **{"cells": cells, "sentences": lines(tmp_path, "G1"), **options})


def test_a_column_needs_sentences(tmp_path):
    with pytest.raises(ConfigError, match="a column is one of sentences, got text and no sent"):
        read(tmp_path, make_cells(tmp_path), column="text")


def test_an_output_is_not_replaced_unasked(tmp_path):
    config = ToAnnDataConfig(cells=make_cells(tmp_path))
    run(config, tmp_path / "out.h5ad")
    before = (tmp_path / "out.h5ad").stat().st_mtime_ns
    with pytest.raises(StageError, match=r"must be new, got .*out.h5ad that exists; see --overwri"):
        run(config, tmp_path / "out.h5ad")
    assert (tmp_path / "out.h5ad").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"the output must be an \.h5ad file, got"):
        run(config, tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"PAR1 not really", "sentences must be whole Parquet, got .*a.parquet"),
        ("a.jsonl", b'{"text": "G1"}\n{"text": 1}\n', "sentences must be JSON, one record a line"),
        (
            "a.jsonl",
            b'{"text": "G1"}\n{"text": null}\n',
            "a sentence must be text, got None in row 1",
        ),
        (
            "a.jsonl",
            b'{"sentense": "G1"}\n',
            "column completion or cell_sentence or text, got 'sent",
        ),
        ("a.txt", b"G1 \xff\n", "sentences must be UTF-8 text, got"),
        ("a.txt", b"", "sentences must be at least one, got none in"),
    ],
)
def test_a_damaged_file_of_sentences_is_refused(tmp_path, name, content, message):
    cells = make_cells(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path, cells, sentences=str(tmp_path / name))
    assert not (tmp_path / "out.h5ad").exists()


def test_a_column_that_is_not_there_names_the_nearest(tmp_path):
    cells = make_cells(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"answer": "G1"}\n')
    adata, _ = read(tmp_path, cells, sentences=str(tmp_path / "a.jsonl"), column="answer")
    assert adata.n_obs == 1
    with pytest.raises(DataError, match=r"got 'answr' in .* did you mean 'answer'"):
        read(tmp_path, cells, sentences=str(tmp_path / "a.jsonl"), column="answr")


def test_shards_that_are_damaged_are_refused(tmp_path):
    cells = make_cells(tmp_path)
    (cells / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="a cell shard must be whole Parquet, got"):
        read(tmp_path, cells)
    (cells / "part-00000.parquet").unlink()
    with pytest.raises(MissingFileError, match="every part of the manifest must be there, got no"):
        read(tmp_path, cells)
