"""`c2s-rl to-anndata` and `c2s-rl export-c2s` through the command line."""

import sys

import anndata
import pytest

from c2s_rl.cli import main
from tests.pipeline.shard_cases import make_cells


@pytest.fixture
def end_of(capsys, monkeypatch):
    """Run the command line in this process: exit code, output, errors."""

    def run(*arguments):
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["c2s-rl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


def test_cells_become_anndata(tmp_path, end_of):
    cells, output = make_cells(tmp_path), tmp_path / "out" / "cells.h5ad"
    code, printed, _ = end_of("to-anndata", "--cells", cells, "--output", output)
    assert code == 0
    assert f"{output}: 50 cells, values by stored; of " in printed
    assert anndata.read_h5ad(output).shape == (50, 20)
    code, _, errors = end_of("to-anndata", "--cells", cells, "--output", output)
    assert (code, "see --overwrite" in errors) == (2, True)


def test_sentences_become_anndata_by_the_mean_of_their_places(tmp_path, end_of):
    cells, output = make_cells(tmp_path, rank_form="log_rank"), tmp_path / "cells.h5ad"
    texts = tmp_path / "answers.txt"
    texts.write_text("G1 G2 NOT G1\n")
    command = ("to-anndata", "--cells", cells, "--output", output, "--sentences", texts)
    code, printed, _ = end_of(*command, "--repeats", "mean", "--set", "compression=none")
    assert code == 0
    assert "of 4 words 1 are no genes, 1 name a gene again, 0 are below 0" in printed
    adata = anndata.read_h5ad(output)
    # G1 at places 0 and 3, mean 1: G2 is first.
    assert adata.X[0, 2] > adata.X[0, 1] > 0
    assert adata.uns["c2s_rl"]["repeats"] == "mean"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--values", "stord"),
            "Input should be 'stored' or 'rank_model', got 'stord' at 'values'",
        ),
        (("--repeats", "last"), "Input should be 'first' or 'mean', got 'last' at 'repeats'"),
        (
            ("--set", "compresion=none"),
            "got 'compresion' in the command line; did you mean 'compress",
        ),
    ],
)
def test_an_unknown_word_is_one_line(tmp_path, end_of, options, message):
    output = tmp_path / "cells.h5ad"
    code, _, errors = end_of("to-anndata", "--cells", tmp_path, "--output", output, *options)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_cells_become_a_data_set_of_cell2sentence(tmp_path, end_of):
    cells = make_cells(tmp_path)
    code, printed, _ = end_of("export-c2s", "--cells", cells, "--output", tmp_path / "c2s")
    assert code == 0
    assert printed.endswith("/c2s: 50 cells with cell_name, cell_sentence, kind, organism\n")
    assert (tmp_path / "c2s" / "vocabulary.json").is_file()
