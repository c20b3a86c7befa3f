"""The statistics page of token shards: an epoch in numbers and pictures, and a sample a task.

Everything that comes from data or config is escaped (jinja2 autoescape); the only markup passed
through is the SVG that `plots.py` made. It names no date, so that equal shards have equal pages.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from c2s_rl.data.token_statistics import TaskTally, TokenSide, TokenStatistics
from c2s_rl.evaluation.report import report_environment
from c2s_rl.evaluation.token_plot import length_picture, share_picture
from c2s_rl.evaluation.token_summary import headline, losses, tables, words


@dataclass(frozen=True)
class TokenSample:
    """One sample of a task."""

    task: str
    """The task, in words."""
    prompt_id: str
    """Which sample it is."""
    prompt: str
    """Shortened in its middle."""
    pieces: tuple[str, ...]
    """The first tokens of the answer, as text."""
    num_more: int
    """Tokens of the answer that are not shown."""
    num_prompt_tokens: int
    """Tokens of the prompt."""
    num_target_tokens: int
    """Tokens of the answer."""


def render_token_report(statistics: TokenStatistics, made_from: Mapping[str, JsonValue]) -> str:
    """Lay out the page.

    Args:
        statistics: What was counted.
        made_from: What decides every byte of the shards: config, seed and hashes.

    Returns:
        A whole HTML document that refers to nothing outside itself.
    """
    train = statistics.of_side(TokenSide.TRAIN)
    return (
        report_environment()
        .get_template("token_report.html")
        .render(
            headline=headline(statistics),
            losses=losses(statistics),
            shares=share_picture(statistics),
            lengths=length_picture(statistics),
            tables=tables(statistics),
            samples=[_sample(tally) for tally in train],
            made_from=json.dumps(made_from, indent=1),
        )
    )


def _sample(tally: TaskTally) -> TokenSample:
    example = tally.example
    assert example is not None  # a task without any sample is an error before this
    return TokenSample(
        task=words(tally.counts.task),
        prompt_id=example.prompt_id,
        prompt=example.prompt,
        pieces=example.target_pieces,
        num_more=example.num_target_tokens - len(example.target_pieces),
        num_prompt_tokens=example.num_prompt_tokens,
        num_target_tokens=example.num_target_tokens,
    )
