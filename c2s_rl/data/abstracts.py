"""The abstract of every study that cells are of, from a table of two columns: study, abstract.

`text_table.py` has the formats. Left out: several texts of one study (`caption_drafts.py`).
"""

from collections.abc import Mapping
from pathlib import Path

from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.data.corpus_sections import MultiCellConfig
from c2s_rl.data.drafts import Material
from c2s_rl.data.text_table import TextColumns, read_texts
from c2s_rl.errors import DataError

COLUMNS = TextColumns("study", "abstract", "a table of abstracts")


def study_abstracts(material: Material, settings: MultiCellConfig) -> Mapping[str, str]:
    """Read the abstract of every study that the cells are of; empty without a file.

    Returns:
        Value of dataset_column to abstract; '' to the only one without such a column.

    Raises:
        MissingFileError: If there is no file.
        DataError: If a study of the cells is not in it, or it holds several and cells do not say
            which they are of.
    """
    if settings.abstracts is None:
        return {}
    abstracts = read_abstracts(settings.abstracts)
    column = settings.dataset_column
    if column is None:
        if len(abstracts) > 1:
            raise DataError(
                "abstracts of several studies need multi_cell.dataset_column, got "
                f"{shown(sorted(abstracts))} in {settings.abstracts} and no such column"
            )
        return {"": next(iter(abstracts.values()))}
    studies = {material.value(cell, column) for cell in material.cells} - {""}
    for study in sorted(studies - abstracts.keys()):
        known = sorted(abstracts)
        raise DataError(
            unknown_name(f"a study of obs {column}", study, known, str(settings.abstracts))
        )
    return {**abstracts, "": ""}  # a cell without a study is left out and counted


def read_abstracts(path: Path) -> dict[str, str]:
    """Read a table of studies.

    Args:
        path: .tsv, .txt, .csv, .jsonl or .parquet; ${VARIABLES} allowed.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If the path names a variable that is not set.
        DataError: If it is of another format, a row breaks a rule, or a study has two abstracts.
    """
    texts = read_texts(path, COLUMNS)
    several = sorted(study for study, abstracts in texts.items() if len(abstracts) > 1)
    if several:
        raise DataError(f"a study must have one abstract, got two of {several[0]!r} in {path}")
    return {study: abstracts[0] for study, abstracts in texts.items()}
