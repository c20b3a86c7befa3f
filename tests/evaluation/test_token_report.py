import re

import pytest

from c2s_rl.data.token_statistics import (
    GeneTokens,
    TaskCounts,
    TaskTally,
    TokenExample,
    TokenSide,
    TokenStatistics,
)
from c2s_rl.evaluation.token_report import render_token_report
from c2s_rl.evaluation.token_summary import headline, losses, percent, quantile, short, tables
from c2s_rl.types import Task

CELL, TYPE = Task.CELL_GENERATION, Task.CELL_TYPE_ANNOTATION


def tally(task: Task, side: TokenSide, lengths: dict[int, int], **counts: int) -> TaskTally:
    return TaskTally(
        counts=TaskCounts(task=task, side=side, **counts),
        lengths=lengths,
        genes=GeneTokens(num_genes=200, num_tokens=250, num_whole=150),
        example=TokenExample(
            key=1,
            prompt_id="p1",
            prompt="A cell of type <B & T>:",
            target_pieces=(" ISG", "15", " B2M"),
            num_prompt_tokens=6,
            num_target_tokens=50,
        ),
    )


@pytest.fixture
def statistics() -> TokenStatistics:
    """Cells: 10, of which 2 are not shown, 1 is dropped, 3 are cut. Types: 5, shown 4 times."""
    cells = tally(
        CELL,
        TokenSide.TRAIN,
        {100: 4, 900: 4},
        num_samples=10,
        num_thinned=2,
        num_too_long=1,
        num_cut=3,
        num_prompt_tokens=200,
        num_target_tokens=1000,
    )
    types = tally(
        TYPE,
        TokenSide.TRAIN,
        {60: 5},
        num_samples=5,
        num_repeats=15,
        num_prompt_tokens=700,
        num_target_tokens=100,
    )
    out = tally(CELL, TokenSide.EVAL, {100: 2}, num_samples=2, num_prompt_tokens=200)
    return TokenStatistics(
        max_length=500,
        num_rows={TokenSide.TRAIN: 5, TokenSide.EVAL: 1},
        efficiency={TokenSide.TRAIN: 0.8, TokenSide.EVAL: 0.4},
        is_packed=True,
        tallies=(out, cells, types),
    )


def rows_of(statistics: TokenStatistics, title: str) -> dict[str, dict[str, str]]:
    table = next(table for table in tables(statistics) if table.title == title)
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_headline_says_what_an_epoch_is(statistics: TokenStatistics) -> None:
    # 10 - 2 - 1 cells and 5 types shown 4 times are 27; 1,200 + 800 tokens.
    assert headline(statistics) == (
        "An epoch shows 27 samples of 2 tasks: 2 k tokens in 5 rows of up to 500, 80.0 % full."
    )


def test_what_is_not_shown_whole_is_said_by_reason_and_task(statistics: TokenStatistics) -> None:
    assert losses(statistics) == [
        "Cut after a whole gene to fit 500 tokens: cell generation 3 (30.0 %).",
        "Dropped, longer than 500 tokens: cell generation 1 (10.0 %).",
        "Not shown, since the mixture gives the task less: cell generation 2 (20.0 %).",
    ]


def test_samples_are_counted_by_task(statistics: TokenStatistics) -> None:
    rows = rows_of(statistics, "Samples by task")
    assert list(rows["cell generation"].values()) == (
        ["cell generation", "10", "7", "25.9 %", "1.00", "-", "2", "-", "3", "1", "2"]
    )
    assert (rows["cell type annotation"]["times"], rows["cell type annotation"]["repeats"]) == (
        "4.00",
        "15",
    )


def test_tokens_are_counted_by_task(statistics: TokenStatistics) -> None:
    rows = rows_of(statistics, "Tokens by task")
    # 1,200 of 2,000 tokens; 1,200 / 7 a sample; 250 tokens for 200 genes, 150 of them whole.
    assert list(rows["cell generation"].values())[1:] == (
        ["1.2 k", "60.0 %", "200", "1 k", "171", "1.25", "75.0 %"]
    )
    assert rows["all"]["tokens"] == "2 k"


def test_lengths_and_rows(statistics: TokenStatistics) -> None:
    lengths = rows_of(statistics, "Lengths by task")["cell generation"]
    assert (lengths["median"], lengths["95 %"], lengths["too long"]) == ("100", "900", "50.0 %")
    # 27 samples and 2,000 tokens in 5 rows; eval: 2 samples of 200 tokens in one.
    assert [list(row.values()) for row in rows_of(statistics, "Rows").values()] == [
        ["training", "5", "27", "5.40", "400", "80.0 %"],
        ["eval", "1", "2", "2.00", "200", "40.0 %"],
    ]


def test_quantile_is_a_length_that_occurs() -> None:
    lengths = {10: 1, 20: 2, 40: 1}
    assert [quantile(lengths, q) for q in (0.0, 0.25, 0.5, 0.75, 0.76, 1.0)] == (
        [10, 10, 20, 20, 40, 40]
    )


def test_numbers_are_written_short() -> None:
    assert [short(n) for n in (0, 999, 1234, 5_000_000, 2.5e9)] == [
        "0",
        "999",
        "1.23 k",
        "5 M",
        "2.5 G",
    ]
    assert [percent(*p) for p in ((0, 9), (1, 9000), (1, 3), (1, 0))] == [
        "0 %",
        "< 0.1 %",
        "33.3 %",
        "-",
    ]


def test_page_stands_alone_and_escapes_data(statistics: TokenStatistics) -> None:
    page = render_token_report(statistics, {"seed": 0})
    assert page.count("<svg") == 2
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "A cell of type &lt;B &amp; T&gt;:" in page
    # Each token of the answer by itself, and how many are not shown: 50 - 3.
    assert "<span> ISG</span><span>15</span><span> B2M</span>" in page
    assert "and 47 more tokens" in page
    assert page == render_token_report(statistics, {"seed": 0})


def test_page_of_one_task_without_losses(statistics: TokenStatistics) -> None:
    only = tally(CELL, TokenSide.TRAIN, {30: 2}, num_samples=2, num_prompt_tokens=20)
    alone = statistics.model_copy(
        update={
            "tallies": (only,),
            "is_packed": False,
            "num_rows": {s: 2 * s.is_train for s in TokenSide},
        }
    )
    page = render_token_report(alone, {})
    assert "Every sample is shown whole." in page
    assert "too long</text>" not in page
    assert "2 rows of up to 500 (not packed)" in page
