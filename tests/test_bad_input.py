"""Twelve kinds of bad input, through the command line: one line, exit code 2, no traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from c2s_rl.cli import main

GENES = ("ISG15", "IFI6", "CD3D", "HLA-A")
Break = Callable[[Path], None]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Three good cells of raw counts."""
    counts = sp.csr_matrix(np.array([[3, 0, 1, 2], [0, 5, 0, 1], [4, 1, 0, 0]], dtype=np.float32))
    adata = ad.AnnData(
        counts,
        obs=pd.DataFrame({"cell_type": ["B", "T", "B"]}, index=["c1", "c2", "c3"]),
        var=pd.DataFrame(index=list(GENES)),
    )
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    return path


def _value(number: float) -> Break:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["X/data"][2] = number

    return change


def _genes(*names: str) -> Break:
    def change(path: Path) -> None:
        adata = ad.read_h5ad(path)
        adata.var_names = list(names)
        adata.write_h5ad(path)

    return change


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _index(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X/indices"][1] = 77


def _nothing(path: Path) -> None:
    assert path.is_file()


CASES: dict[str, tuple[Break, tuple[str, ...], tuple[str, ...]]] = {
    "nan": (_value(np.nan), (), ("nan",)),
    "negative": (_value(-1.5), (), ("-1.5", "scaled", "raw counts")),
    "infinite": (_value(np.inf), (), ("inf",)),
    "fractions called counts": (_value(0.25), (), ("0.25", "values")),
    "duplicated symbol": (_genes("ISG15", "ISG15", "CD3D", "HLA-A"), (), ("'ISG15'", "duplicates")),
    "duplicated by case": (
        _genes("Isg15", "ISG15", "CD3D", "HLA-A"),
        ("convert.gene_case=upper",),
        ("unique in upper case", "ISG15"),
    ),
    "symbol with a space": (_genes("ISG15", "IFI 6", "CD3D", "HLA-A"), (), ("'IFI 6'",)),
    "ensembl ids": (
        _genes(*(f"ENSG0000018760{i}" for i in range(4))),
        (),
        ("ENSG00000187600", "symbol_column"),
    ),
    "obs column that is not there": (
        _nothing,
        ("convert.obs=[cel_type]",),
        ("cel_type", "cell_type"),
    ),
    "truncated file": (_truncate, (), ("cells.h5ad",)),
    "index out of range": (_index, (), ("77",)),
    "mistyped config key": (
        _nothing,
        ("convert.min_gene=3",),
        ("min_gene", "did you mean 'min_genes'"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_with_rule_value_and_place(
    case: str, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    damage, overrides, expected = CASES[case]
    damage(cells)
    before = cells.read_bytes()
    config = tmp_path / "run.yaml"
    config.write_text(f"name: bad\nruns_dir: {tmp_path}\nconvert: {{path: {cells}}}\n")
    words = [word for override in overrides for word in ("--set", override)]
    monkeypatch.setattr("sys.argv", ["c2s-rl", "convert", "--config", str(config), *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert ", got " in lines[0]
    assert [word for word in expected if word not in lines[0]] == [], lines[0]
    # nothing is lost and nothing half-made is left
    assert cells.read_bytes() == before
    assert not (tmp_path / "bad" / "cells").exists()


def test_the_same_cells_convert_when_nothing_is_wrong(
    cells: Path, tmp_path: Path, monkeypatch
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"name: good\nruns_dir: {tmp_path}\nconvert: {{path: {cells}}}\n")
    monkeypatch.setattr("sys.argv", ["c2s-rl", "convert", "--config", str(config)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert (tmp_path / "good" / "cells" / "manifest.json").is_file()
    shutil.rmtree(tmp_path / "good")
