"""What the statistics page of token shards says: its tables as text, by task.

Counts of samples are of distinct ones unless it says otherwise; tokens are those of the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from c2s_rl.data.token_statistics import GeneTokens, TaskTally, TokenSide, TokenStatistics

NONE = "-"


@dataclass(frozen=True)
class TextTable:
    """A table as it is shown."""

    title: str
    """Heading."""
    note: str
    """What its columns mean."""
    columns: tuple[str, ...]
    """Headers, the first that of the rows' names."""
    rows: tuple[tuple[str, ...], ...]
    """Texts of each row, its name first."""


def headline(statistics: TokenStatistics) -> str:
    """Say in one sentence what an epoch is."""
    train = [tally.counts for tally in statistics.of_side(TokenSide.TRAIN)]
    num_samples = sum(counts.num_shown for counts in train)
    num_tokens = sum(counts.num_tokens for counts in train)
    tasks = f"{len(train)} task{'' if len(train) == 1 else 's'}"
    return (
        f"An epoch shows {num_samples:,} samples of {tasks}: {short(num_tokens)} tokens in "
        f"{statistics.num_rows[TokenSide.TRAIN]:,} rows of up to {statistics.max_length:,}"
        f"{_fullness(statistics, TokenSide.TRAIN)}."
    )


def losses(statistics: TokenStatistics) -> list[str]:
    """Say what of the corpus is not shown or not shown whole; empty where all of it is."""
    limit = f"{statistics.max_length:,} tokens"
    parts: dict[str, list[str]] = {
        f"Cut after a whole gene to fit {limit}": [],
        f"Dropped, longer than {limit}": [],
        f"Dropped, no gene of the answer fits behind the prompt in {limit}": [],
        "Not shown, since the mixture gives the task less": [],
    }
    for tally in statistics.tallies:
        counts = tally.counts
        who = words(counts.task) + (" (eval)" if counts.side is TokenSide.EVAL else "")
        numbers = (
            counts.num_cut,
            counts.num_too_long,
            counts.num_prompt_too_long,
            counts.num_thinned,
        )
        for listed, num in zip(parts.values(), numbers, strict=True):
            if num:
                listed.append(f"{who} {num:,} ({percent(num, counts.num_samples)})")
    return [f"{what}: {', '.join(listed)}." for what, listed in parts.items() if listed]


def tables(statistics: TokenStatistics) -> list[TextTable]:
    """All tables of the page."""
    return [_samples(statistics), _tokens(statistics), _lengths(statistics), _rows(statistics)]


def quantile(lengths: Mapping[int, int], share: float) -> int:
    """Smallest length that at least `share` of the samples do not exceed; 0 without samples."""
    wanted, seen = share * sum(lengths.values()), 0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= wanted:
            return length
    return 0


def short(number: float) -> str:
    """Write a count with three digits and k, M or G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def percent(part: float, whole: float) -> str:
    """Write a share; '-' of nothing."""
    if whole == 0:
        return NONE
    share = 100 * part / whole
    return "0 %" if part == 0 else f"{share:.1f} %" if share >= 0.05 else "< 0.1 %"


def words(task: str) -> str:
    """Write a task's name with spaces."""
    return task.replace("_", " ")


def _samples(statistics: TokenStatistics) -> TextTable:
    train = statistics.of_side(TokenSide.TRAIN)
    kept_out = {t.counts.task: t.counts for t in statistics.of_side(TokenSide.EVAL)}
    shown_in_all = sum(tally.counts.num_shown for tally in train)
    rows = []
    for counts in (tally.counts for tally in train):
        out = kept_out.get(counts.task)
        rows.append(
            (
                words(counts.task),
                f"{counts.num_samples:,}",
                f"{counts.num_shown:,}",
                percent(counts.num_shown, shown_in_all),
                f"{counts.num_shown / counts.num_in:.2f}",
                _number(counts.num_repeats),
                _number(counts.num_thinned),
                _number(counts.num_shared),
                _number(counts.num_cut),
                _number(counts.num_too_long + counts.num_prompt_too_long),
                _number(out.num_in if out else 0),
            )
        )
    return TextTable(
        title="Samples by task",
        note="In corpus: training samples of learnt cells. An epoch: samples that the rows show, "
        "repeats counted. Times: how often a sample that is shown at all is shown in an epoch. "
        "Shared: left out, for one of their cells is kept out for the eval loss. Eval: samples of "
        "such cells.",
        columns=(
            "Task",
            "in corpus",
            "an epoch",
            "share",
            "times",
            "repeats",
            "thinned",
            "shared",
            "cut",
            "dropped",
            "eval",
        ),
        rows=tuple(rows),
    )


def _tokens(statistics: TokenStatistics) -> TextTable:
    train = statistics.of_side(TokenSide.TRAIN)
    in_all = sum(tally.counts.num_tokens for tally in train)
    return TextTable(
        title="Tokens by task",
        note="Of the rows of an epoch. Tokens a gene, and genes that are a single token: each time "
        "a gene is written, in a part of the samples.",
        columns=(
            "Task",
            "tokens",
            "share",
            "of prompts",
            "of answers",
            "tokens a sample",
            "tokens a gene",
            "whole genes",
        ),
        rows=(
            *(_token_row(words(tally.counts.task), [tally], in_all) for tally in train),
            _token_row("all", train, in_all),
        ),
    )


def _token_row(name: str, tallies: Sequence[TaskTally], in_all: int) -> tuple[str, ...]:
    counts = [tally.counts for tally in tallies]
    num_tokens = sum(one.num_tokens for one in counts)
    return (
        name,
        short(num_tokens),
        percent(num_tokens, in_all),
        short(sum(one.num_prompt_tokens for one in counts)),
        short(sum(one.num_target_tokens for one in counts)),
        f"{num_tokens / sum(one.num_shown for one in counts):,.0f}",
        *_genes([tally.genes for tally in tallies]),
    )


def _lengths(statistics: TokenStatistics) -> TextTable:
    return TextTable(
        title="Lengths by task",
        note="Tokens of prompt, answer and end, before anything was cut; dropped samples are "
        "counted, thinned ones are not.",
        columns=("Task", "shortest", "median", "95 %", "99 %", "longest", "too long"),
        rows=tuple(_length_row(statistics, t) for t in statistics.of_side(TokenSide.TRAIN)),
    )


def _length_row(statistics: TokenStatistics, tally: TaskTally) -> tuple[str, ...]:
    lengths = tally.lengths
    over = sum(num for length, num in lengths.items() if length > statistics.max_length)
    return (
        words(tally.counts.task),
        f"{min(lengths):,}",
        *(f"{quantile(lengths, share):,}" for share in (0.5, 0.95, 0.99)),
        f"{max(lengths):,}",
        percent(over, sum(lengths.values())),
    )


def _rows(statistics: TokenStatistics) -> TextTable:
    rows = []
    for side in TokenSide:
        counts = [tally.counts for tally in statistics.of_side(side)]
        num_rows = statistics.num_rows[side]
        if not num_rows:
            continue
        num_shown = sum(one.num_shown for one in counts)
        num_tokens = sum(one.num_tokens for one in counts)
        rows.append(
            (
                "training" if side is TokenSide.TRAIN else "eval",
                f"{num_rows:,}",
                f"{num_shown:,}",
                f"{num_shown / num_rows:.2f}",
                f"{num_tokens / num_rows:,.0f}",
                f"{100 * statistics.efficiency[side]:.1f} %",
            )
        )
    kind = "packed, several samples a row" if statistics.is_packed else "not packed"
    return TextTable(
        title="Rows",
        note=f"Rows are {kind}. Full: tokens by the {statistics.max_length:,} that a row can hold; "
        "the rest is padding only as far as the rows of a batch differ.",
        columns=("Side", "rows", "samples", "samples a row", "tokens a row", "full"),
        rows=tuple(rows),
    )


def _genes(parts: Sequence[GeneTokens]) -> tuple[str, str]:
    num_genes = sum(part.num_genes for part in parts)
    if num_genes == 0:
        return NONE, NONE
    num_tokens = sum(part.num_tokens for part in parts)
    num_whole = sum(part.num_whole for part in parts)
    return f"{num_tokens / num_genes:.2f}", percent(num_whole, num_genes)


def _number(number: int) -> str:
    return f"{number:,}" if number else NONE


def _fullness(statistics: TokenStatistics, side: TokenSide) -> str:
    if not statistics.is_packed:
        return " (not packed)"
    return f", {100 * statistics.efficiency[side]:.1f} % full"
