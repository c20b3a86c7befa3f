"""`c2s-rl rewards`: which rewards there are, what one does, and scoring completions with them.

Nothing heavy is imported before a command really runs; none of them starts a cluster.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from rewards.listing import ListedReward, ShownReward

EXIT_UNUSABLE = 2

rewards_app = typer.Typer(
    help="Which rewards there are, what one does, and scoring completions with them.",
    no_args_is_help=True,
)


@rewards_app.command("list")
def list_command() -> None:
    """Every reward that has a name, also of installed packages: scope, range, baseline, meaning."""
    from rich.console import Console

    from rewards.listing import listed_rewards

    rewards = listed_rewards()
    Console().print(_list_table(rewards))
    if any(reward.problem for reward in rewards):
        raise typer.Exit(EXIT_UNUSABLE)


@rewards_app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in YAML.", show_default=False)],
) -> None:
    """What one reward scores, its options, and an example for a run's YAML file."""
    from rewards.listing import shown_reward

    _print_reward(shown_reward(name))


@rewards_app.command("score")
def score_command(
    *,
    config: Annotated[
        Path,
        typer.Option("--config", metavar="FILE", help="The run's YAML file.", show_default=False),
    ],
    completions: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A file or folder of completions; default: the run's."),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Score with this reward instead of the run's."),
    ] = None,
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            default_factory=list,
            help="Override a key of the config; with --reward, set an option of that reward.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write completions and scores here.")
    ] = None,
    max_difference: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, help="Fail where a score differs by more than this."),
    ] = None,
) -> None:
    """Score completions on disk like in training, and compare with the scores they have."""
    from actors.score_job import ScoreRequest, score_completions

    request = ScoreRequest(completions, reward, tuple(overrides), output, max_difference)
    score_completions(config, request)


def _list_table(rewards: "list[ListedReward]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, caption="Higher is better for all.")
    for heading in ("name", "scope", "range", "baseline", "meaning", "from"):
        # only names and ranges must stay in one line
        table.add_column(heading, no_wrap=heading in {"name", "scope", "range"})
    for reward in rewards:
        name, origin = Text(reward.entry.name, "bold"), reward.entry.origin
        # Text, not markup: a range is written in square brackets
        if reward.info is None:
            table.add_row(name, "", "", "", Text(reward.problem, "red"), origin)
        else:
            info = reward.info
            cells = (reward.scope, info.range, info.baseline, info.meaning, origin)
            table.add_row(name, *map(Text, cells))
    return table


def _print_reward(shown: "ShownReward") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    listed, info = shown.listed, shown.listed.info
    console.print(Text(f"{listed.entry.name}: {listed.entry.target} ({listed.entry.origin})"))
    console.print(Text(f"\n{shown.docstring}\n"), soft_wrap=True)
    facts = {"scope": listed.scope}
    if info is not None:
        facts |= {"range": info.range, "baseline": info.baseline, "source": info.source}
    for name, value in facts.items():
        console.print(Text(f"{name:9} {value}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, title="\noptions", title_justify="left")
    for heading in ("name", "type", "default", "meaning"):
        table.add_column(heading)
    for option in shown.options:
        cells = (option.name, option.kind, option.default, option.description)
        table.add_row(*map(Text, cells))
    if shown.options:
        console.print(table)
    console.print(Text(f"\nexample\n\n{shown.example}"), soft_wrap=True)
