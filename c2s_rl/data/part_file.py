"""Writing one part of a folder of cell shards: ranked cells to a Parquet file.

Genes are split into byte streams, which zstd packs best and fastest (a gene takes less than two
bytes); values repeat, for tied genes share them, so they are packed as they lie. Reading is in
`shards.py`; what the columns are is said there.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from c2s_rl.checkpoint import start_flush
from c2s_rl.data.cell_table import CellTable, TextArray

GENES = "genes.list.element"


def write_part(
    path: Path, groups: Iterable[CellTable], *, source_file: str, has_values: bool
) -> int:
    """Write tables of cells, each as a row group; without cells no file is written.

    Args:
        path: The file.
        groups: All with the same obs columns.
        source_file: Where the cells come from, for the column of that name.
        has_values: Write expression beside the genes.

    Returns:
        Cells written.
    """
    writer: pq.ParquetWriter | None = None
    num_cells = 0
    try:
        for group in groups:
            if not len(group):
                continue
            table = _to_arrow(group, source_file, has_values=has_values)
            if writer is None:
                writer = _open(path, table.schema, labels=[*group.obs, "source_file"])
            writer.write_table(table)
            start_flush(path)
            num_cells += len(group)
    finally:
        if writer is not None:
            writer.close()
    return num_cells


def _open(path: Path, schema: pa.Schema, *, labels: list[str]) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=labels,
        column_encoding={GENES: "BYTE_STREAM_SPLIT"},
        # Nobody looks for cells by the lowest gene of a row group.
        write_statistics=["cell_id", "source_row", *labels],
    )


def _to_arrow(cells: CellTable, source_file: str, *, has_values: bool) -> pa.Table:
    offsets = pa.array(cells.indptr.astype(np.int32))
    columns = {
        "cell_id": pa.array(cells.cell_ids, pa.string()),
        "genes": _lists(offsets, pa.array(cells.genes)),
    }
    if has_values:
        columns["values"] = _lists(offsets, pa.array(cells.values))
    columns |= {
        **{name: _dictionary(labels) for name, labels in cells.obs.items()},
        "source_file": _dictionary(np.full(len(cells), source_file)),
        "source_row": pa.array(cells.source_rows, pa.int64()),
    }
    fields = [
        pa.field(name, column.type, nullable=not pa.types.is_list(column.type))
        for name, column in columns.items()
    ]
    return pa.table(columns, schema=pa.schema(fields))


def _lists(offsets: pa.Array, entries: pa.Array) -> pa.ListArray:
    """Cut entries into lists; none is null, which spares the file a level an entry."""
    element = pa.field("element", entries.type, nullable=False)
    return pa.ListArray.from_arrays(offsets, entries, type=pa.list_(element))


def _dictionary(labels: TextArray) -> pa.DictionaryArray:
    """Encode labels; '' becomes null."""
    texts = pa.array(labels.tolist(), pa.string(), mask=labels == "")
    return texts.dictionary_encode()
