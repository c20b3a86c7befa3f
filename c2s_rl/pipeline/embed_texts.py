"""Free texts to embed, from a file of lines.

All texts are held in memory; cells, of which there are more, are read by range.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.pipeline.embed_contexts import Context

TEXT_FORMATS = (".jsonl", ".tsv")


@dataclass(frozen=True)
class ListedContexts:
    """Contexts that are made already."""

    contexts: tuple[Context, ...]
    label_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.contexts)

    def read(self, start: int, stop: int) -> list[Context]:
        """Return contexts start..stop-1."""
        return list(self.contexts[start:stop])


def read_texts(path: Path) -> ListedContexts:
    """Read free texts.

    Args:
        path: .jsonl, an object a line, or .tsv with a header and no quotes; `id` and `text`, and
            further columns as labels (all lines of a .jsonl have the same keys).

    Raises:
        MissingFileError: If there is no such file.
        DataError: If the form is another, a text is empty, or an id repeats.
    """
    if not path.is_file():
        raise MissingFileError(f"texts must be a file that exists, got {path}")
    if path.suffix not in TEXT_FORMATS:
        raise DataError(f"texts must be one of {', '.join(TEXT_FORMATS)}, got {path}")
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"texts must be UTF-8, got {error} in {path}") from error
    # Not splitlines: a JSON string may hold other characters that end a line in Python.
    lines = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]
    rows = _jsonl_rows(lines, path) if path.suffix == ".jsonl" else _tsv_rows(lines, path)
    if not rows:
        raise DataError(f"a file of texts must have at least one, got none in {path}")
    names = tuple(name for name in rows[0] if name not in {"id", "text"})
    contexts: list[Context] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        if set(row) != {"id", "text", *names}:
            raise DataError(
                f"every text must have id, text and the labels {list(names)}, got {list(row)} in "
                f"text {number} of {path}"
            )
        if not row["text"].strip() or row["id"] in seen or not row["id"]:
            raise DataError(
                "a text must not be empty and its id be its own, got "
                f"id {row['id']!r} and text {row['text'][:20]!r} in text {number} of {path}"
            )
        seen.add(row["id"])
        contexts.append(Context(row["id"], row["text"].strip(), tuple(row[n] for n in names)))
    return ListedContexts(tuple(contexts), names)


def _jsonl_rows(lines: Sequence[str], path: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"a .jsonl file must hold an object a line, got {error} in line {number} of {path}"
            ) from error
        if not isinstance(found, dict) or not {"id", "text"} <= set(found):
            raise DataError(
                "a text must be an object with id and text, got "
                f"{line[:40]!r} in line {number} of {path}"
            )
        rows.append({str(key): "" if value is None else str(value) for key, value in found.items()})
    return rows


def _tsv_rows(lines: Sequence[str], path: Path) -> list[dict[str, str]]:
    table = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    header = table[0] if table else []
    if not {"id", "text"} <= set(header):
        raise DataError(f"a .tsv of texts must have columns id and text, got {header} in {path}")
    for number, row in enumerate(table, start=1):
        if len(row) != len(header):
            raise DataError(
                f"a line must have {len(header)} columns, got {len(row)} in line {number} of {path}"
            )
    return [dict(zip(header, row, strict=True)) for row in table[1:]]
