"""`c2s-rl rewards score`: a run's completions scored again, without a cluster.

The scoring itself is `rewards/offline.py`; here are the run's folders and the table.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.run_config import RunConfig, load_run
from actors.run_files import ALIGN, CORPUS, reward_material
from c2s_rl.config import apply_overrides
from c2s_rl.data.completions import COMPLETIONS, completion_files, write_completions
from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.errors import ConfigError, RewardError
from rewards.composite import CompositeReward, RewardSpec
from rewards.offline import ScoreSummary, rescore, summaries


@dataclass(frozen=True)
class ScoreRequest:
    """What is asked for beside the run."""

    completions: Path | None = None
    """File or folder; None takes the run's own."""
    reward: str | None = None
    """Score with this reward instead of the run's."""
    overrides: tuple[str, ...] = ()
    """'key=value' of the config or, with `reward`, of its options."""
    output: Path | None = None
    """Also write completions and scores here."""
    max_difference: float | None = None
    """Largest difference to the scores in the file; None only reports it."""


def score_completions(config: Path, request: ScoreRequest) -> list[ScoreSummary]:
    """Score completions, print a line for each reward, and write them where that is asked for.

    Raises:
        ConfigError: If the config or the named reward is wrong.
        MissingFileError: If there are no completions.
        DataError: If they do not belong to the run's corpus.
        RewardError: If a score differs by more than allowed.
    """
    run = load_run(config, () if request.reward else request.overrides)
    specs = _specs(run, request)
    files = completion_files(request.completions or run.folder / ALIGN / COMPLETIONS)
    prompts = read_prompts(run.folder / CORPUS)
    reward = CompositeReward(
        specs, prompts.vocabulary, config=run.composite, material=reward_material(run)
    )
    rescored = rescore(reward, files, prompts)
    found = summaries(rescored)
    console = Console()
    console.print(_table(found, is_compared=request.reward is None))
    if request.output is not None:
        write_completions(request.output, rescored.scored, rescored.advantages)
        console.print(f"scores: {request.output}", soft_wrap=True)
    if request.reward is None:
        _check(found, request.max_difference)
    return found


def _specs(run: RunConfig, request: ScoreRequest) -> tuple[RewardSpec, ...]:
    if request.reward is not None:
        options = apply_overrides({}, request.overrides)
        return (RewardSpec(name=request.reward, options=options),)
    if not run.rewards:
        raise ConfigError("scoring needs a section rewards in the config, or --reward, got neither")
    return run.rewards


def _table(found: list[ScoreSummary], *, is_compared: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("reward")
    for heading in (
        "completions",
        "scored",
        "failed",
        "mean",
        *(["largest difference"] * is_compared),
    ):
        table.add_column(heading, justify="right")
    for one in found:
        counts = (one.num_completions, one.num_scored, one.num_failed)
        row = [Text(one.name), *map(str, counts), f"{one.mean:.6g}"]
        table.add_row(*row, *([_difference(one)] * is_compared))
    return table


def _difference(one: ScoreSummary) -> Text:
    if one.is_exact:
        return Text("0 (exact)", "green")
    unmatched = f", {one.num_unmatched} with a score on one side only" if one.num_unmatched else ""
    return Text(f"{one.largest_difference:.3g}{unmatched}", "yellow")


def _check(found: list[ScoreSummary], allowed: float | None) -> None:
    if allowed is None:
        return
    for one in found:
        if one.largest_difference > allowed or one.num_unmatched:
            raise RewardError(
                f"scores must differ by at most {allowed:g} from those in the file, got "
                f"{one.largest_difference:.3g} for {one.name!r}, and {one.num_unmatched} "
                "completions with a score on one side only"
            )
