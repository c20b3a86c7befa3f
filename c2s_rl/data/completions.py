"""Sampled completions with parsed cells and scores, as Parquet files that can be looked into.

One file a step, one row a completion, groups in the order in which they were learned from. A file
holds all that a reward saw but the prompt's own record, which is found in the corpus by its id:
read back, it gives the same groups, so that the same rewards give the same scores.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from c2s_rl.cells.parse import parse_cells
from c2s_rl.cells.vocabulary import Vocabulary, shown
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.types import Completion, Group, ParsedCell, PromptRecord, ScoredGroup

COMPLETIONS = "completions"

_INTS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("group", pa.int32()),  # number in the file: a prompt may have been asked twice
        ("prompt", pa.string()),
        ("condition", pa.string()),
        ("completion", pa.string()),
        ("genes", _INTS),  # vocabulary indices
        ("num_words", pa.int32()),
        ("num_duplicates", pa.int32()),
        ("unknown", pa.list_(pa.string())),
        ("is_truncated", pa.bool_()),
        ("reward", pa.float64()),  # the total; null where there is none
        ("advantage", pa.float64()),
        ("policy_version", pa.int32()),
        ("num_tokens", pa.int32()),
        ("rollout_logprob", pa.float64()),  # sum over tokens
        ("prompt_token_ids", _INTS),
        ("token_ids", _INTS),
        ("rollout_logprobs", pa.list_(pa.float64())),  # one a token, nats
    ]
)
# Columns of the rewards follow: `reward/<name>`, `diagnostic/<name>` and `failure/<name>`.
REWARD, DIAGNOSTIC, FAILURE = "reward/", "diagnostic/", "failure/"
TOTAL = "total"

Row = dict[str, object]


@dataclass(frozen=True, eq=False)
class StoredCompletions:
    """What a file of completions holds."""

    scored: tuple[ScoredGroup, ...]
    """Groups with the scores they had."""
    advantages: tuple[tuple[float, ...], ...]
    """[P][G]."""


@dataclass(frozen=True, eq=False)
class StoredScores:
    """The scores of a file without its completions."""

    prompt_ids: list[str]
    """[B]"""
    scores: dict[str, list[float | None]]
    """Reward name, or 'total', to [B] scores; None where there is none."""


def write_completions(
    path: Path, scored: Sequence[ScoredGroup], advantages: Sequence[Sequence[float]]
) -> None:
    """Write one row a completion, with the columns of `SCHEMA` and those of the rewards.

    Args:
        path: The file; its folder is created, and a file that is there is replaced.
        scored: P groups.
        advantages: [P][G].
    """
    rows = [
        row
        for number, (one, advantages_G) in enumerate(zip(scored, advantages, strict=True))
        for row in _rows(number, one, advantages_G)
    ]
    # a reward may give a figure, or fail, in some groups only
    names = list(dict.fromkeys(name for row in rows for name in row if name not in SCHEMA.names))
    extra = [(n, pa.string() if n.startswith(FAILURE) else pa.float64()) for n in names]
    schema = pa.schema([*SCHEMA, *extra])
    columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in schema]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table(columns, schema=schema), partial, compression="zstd")
    partial.replace(path)


def completion_files(path: Path) -> list[Path]:
    """List the files of completions that a path names: itself, or those of a folder in order.

    Raises:
        MissingFileError: If there is none.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise MissingFileError(f"completions must be a file or a folder of them, got {path}")
    return files


def read_scores(path: Path) -> StoredScores:
    """Read only the scores of a file.

    Raises:
        DataError: If it is no file of completions.
    """
    table = _read_table(path)
    if "reward" not in table.column_names or "prompt_id" not in table.column_names:
        raise DataError(
            "a file of completions must have the columns prompt_id and reward, got "
            f"{shown(table.column_names)} in {path}"
        )
    columns = {**dict(_named(table.column_names, REWARD)), TOTAL: "reward"}
    return StoredScores(
        table["prompt_id"].to_pylist(),
        {name: table[column].to_pylist() for name, column in columns.items()},
    )


def read_completions(
    path: Path, records: Mapping[str, PromptRecord], vocabulary: Vocabulary
) -> StoredCompletions:
    """Read a file back; texts are parsed anew.

    Args:
        path: What `write_completions` wrote.
        records: Prompt id to record, of the corpus that the run had.
        vocabulary: Gene symbols of that corpus.

    Raises:
        DataError: If the file lacks a column, or does not belong to the corpus: an unknown prompt,
            or a text that parses to other genes.
    """
    table = _read_table(path)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(
            f"a file of completions must have the columns of this version, got no {shown(missing)} "
            f"in {path}"
        )
    unknown = sorted(set(table["prompt_id"].to_pylist()) - records.keys())
    if unknown:
        raise DataError(f"prompts must be in the corpus, got {shown(unknown)} in {path}")
    completions = _completions(table)
    cells = _cells(table, vocabulary, path)
    prompt_ids, tokens = table["prompt_id"].to_pylist(), table["prompt_token_ids"].to_pylist()
    scored: list[ScoredGroup] = []
    advantages: list[tuple[float, ...]] = []
    for part in _groups(table):
        group = Group(
            records[prompt_ids[part.start]],
            tuple(tokens[part.start]),
            tuple(completions[part]),
            tuple(cells[part]),
        )
        scored.append(_scored(group, table[part]))
        advantages.append(tuple(table["advantage"][part].to_pylist()))
    return StoredCompletions(tuple(scored), tuple(advantages))


def _rows(number: int, scored: ScoredGroup, advantages_G: Sequence[float]) -> Iterator[Row]:
    group = scored.group
    parts = {REWARD: scored.components, DIAGNOSTIC: scored.diagnostics, FAILURE: scored.failures}
    pairs = zip(group.completions_G, group.cells_G, strict=True)
    for index, (completion, cell) in enumerate(pairs):
        row: Row = {
            "prompt_id": group.record.prompt_id,
            "group": number,
            "prompt": group.record.prompt,
            "condition": group.record.condition,
            "completion": completion.text,
            "genes": cell.genes_K,
            "num_words": cell.num_words,
            "num_duplicates": cell.num_duplicates,
            "unknown": list(cell.unknown),
            "is_truncated": completion.is_truncated,
            "reward": scored.rewards_G[index],
            "advantage": advantages_G[index],
            "policy_version": completion.policy_version,
            "num_tokens": len(completion.token_ids_T),
            "rollout_logprob": float(sum(completion.rollout_logprobs_T)),
            "prompt_token_ids": group.prompt_token_ids,
            "token_ids": completion.token_ids_T,
            "rollout_logprobs": completion.rollout_logprobs_T,
        }
        for prefix, named in parts.items():
            row |= {f"{prefix}{name}": values[index] for name, values in named.items()}
        yield row


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"completions must be whole Parquet, got {error} in {path}") from error


def _groups(table: pa.Table) -> list[slice]:
    """Rows of each group."""
    numbers = table["group"].to_pylist()
    starts = [row for row in range(len(numbers)) if row == 0 or numbers[row] != numbers[row - 1]]
    return [slice(*bounds) for bounds in pairwise([*starts, len(numbers)])]


def _completions(table: pa.Table) -> list[Completion]:
    names = ("completion", "token_ids", "rollout_logprobs", "policy_version", "is_truncated")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return [
        Completion(text, tuple(tokens), tuple(logprobs), version, is_truncated=is_truncated)
        for text, tokens, logprobs, version, is_truncated in rows
    ]


def _cells(table: pa.Table, vocabulary: Vocabulary, path: Path) -> list[ParsedCell]:
    """Parse every text as in training; other genes than then mean another vocabulary."""
    texts, genes, prompt_ids = (
        table[name].to_pylist() for name in ("completion", "genes", "prompt_id")
    )
    cells = parse_cells(texts, vocabulary, is_truncated_C=table["is_truncated"].to_pylist())
    for cell, recorded, prompt_id in zip(cells, genes, prompt_ids, strict=True):
        if cell.genes_K.tolist() != recorded:
            raise DataError(
                f"completions must parse to the genes that were recorded, got "
                f"{len(cell.genes_K)} genes instead of {len(recorded)} or others, for an answer to "
                f"prompt {prompt_id!r} in {path}: the corpus has another vocabulary"
            )
    return cells


def _scored(group: Group, table: pa.Table) -> ScoredGroup:
    """One group with the scores of its rows; figures and failures that it had none of are left."""
    values = {
        name: tuple(table[name].to_pylist())
        for name in table.column_names
        if name.startswith(("reward", DIAGNOSTIC, FAILURE))
    }
    diagnostics = {name: v for name, v in values.items() if None not in v}
    failures = {name: v for name, v in values.items() if set(v) != {None}}
    return ScoredGroup(
        group,
        values["reward"],
        {name: values[column] for name, column in _named(values, REWARD)},
        {name: diagnostics[column] for name, column in _named(diagnostics, DIAGNOSTIC)},
        {name: failures[column] for name, column in _named(failures, FAILURE)},
    )


def _named(columns: Iterable[str], prefix: str) -> list[tuple[str, str]]:
    """Name and column of what a prefix marks."""
    return [(name.removeprefix(prefix), name) for name in columns if name.startswith(prefix)]
