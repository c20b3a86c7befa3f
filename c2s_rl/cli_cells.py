"""`c2s-rl to-anndata` and `c2s-rl export-c2s`: cells out of shards, for scanpy and cell2sentence.

Nothing heavy is imported before a command really runs; none of them needs a run's YAML file.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import JsonValue

cells_app = typer.Typer()

CellsOption = Annotated[
    Path,
    typer.Option("--cells", metavar="FOLDER", help="Folder of cell shards.", show_default=False),
]
SentencesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Answers of a model instead of the folder's cells: completions of a run (file or "
        "folder), Parquet or JSON lines with a column cell_sentence or text, a data set of "
        "cell2sentence, or text with one sentence a line.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the output.")]


@cells_app.command("to-anndata")
def to_anndata_command(
    *,
    cells: CellsOption,
    output: Annotated[
        Path, typer.Option(metavar="FILE.h5ad", help="The file to write.", show_default=False)
    ],
    sentences: SentencesOption = None,
    values: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="stored: as measured; rank_model: by the folder's line from rank to expression. "
            "Default: stored where there are values.",
        ),
    ] = None,
    repeats: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Place of a gene that a sentence names twice: first, or mean as in cell2sentence.",
        ),
    ] = "first",
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            default_factory=list,
            help="column=NAME of the sentences; var_names=original or sentence, the spelling of "
            "genes; compression=gzip, lzf or none. May be repeated.",
            show_default=False,
        ),
    ],
    overwrite: OverwriteOption = False,
) -> None:
    """Stored or generated sentences back to expression: an .h5ad file for scanpy."""
    from rich.console import Console

    from c2s_rl.config import apply_overrides, validate
    from c2s_rl.pipeline import to_anndata

    options: dict[str, JsonValue] = {"cells": str(cells), "values": values, "repeats": repeats}
    options["sentences"] = None if sentences is None else str(sentences)
    data = apply_overrides(options, settings)
    config = validate(to_anndata.ToAnnDataConfig, dict(data), "the command line")
    written = to_anndata.run(config, output, overwrite=overwrite)
    Console().print(
        f"{output}: {written.num_cells} cells, values by {written.values.value}; of "
        f"{written.num_words} words {written.num_unknown} are no genes, {written.num_repeated} "
        f"name a gene again, {written.num_below_zero} are below 0 on the line",
        soft_wrap=True,
        markup=False,
    )


@cells_app.command("export-c2s")
def export_c2s_command(
    *,
    cells: CellsOption,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The folder to write.", show_default=False)
    ],
) -> None:
    """Cell shards as a data set of the cell2sentence package: sentences, labels, vocabulary."""
    from rich.console import Console

    from c2s_rl.pipeline import export_c2s

    exported = export_c2s.run(cells, output)
    Console().print(
        f"{output}: {exported.num_cells} cells with {', '.join(exported.columns)}",
        soft_wrap=True,
        markup=False,
    )
