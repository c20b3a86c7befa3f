"""Any number of finished runs side by side: what GRPO gained over what it started from, in percent.

Reads each run's evaluation.json, and its config.yaml to find runs that differ by their seed alone:
those stand together as a mean with the range of their values. Nothing is measured again. A single
run's interval is over prompts and says nothing about another seed; a range over seeds does, and
hides how many prompts there were, so both are shown where both are known.

How it looks: `compare_table.py`, `compare_plot.py`, `compare_page.py`.
"""

import difflib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from c2s_rl.config import load_yaml
from c2s_rl.errors import ConfigError, MissingFileError
from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.metrics import Better, Metric, MetricInfo
from c2s_rl.evaluation.result import PRIMARY, Evaluation, read_evaluation

EVALUATION = "evaluation.json"
CONFIG = "config.yaml"
# What differs between two runs of one setting: names, places, and every key 'seed'.
NOT_SETTING = frozenset({"name", "runs_dir", "ray"})
# Fig. 8G of the C2S-Scale paper: Kendall's tau, Pearson's r, scFID.
HEADLINE = (PRIMARY.value, Metric.ALL_PEARSON.value)
HEADLINE_WORD = "scfid"


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run."""

    label: str
    """Its folder's name, or its whole path where two have one name."""
    evaluation: Evaluation
    """What was found."""
    setting: str
    """Its config without names and seeds, as text; runs of equal settings are one group."""

    @property
    def policies(self) -> tuple[str, str] | None:
        """Names of baseline and candidate; None where no two policies were compared."""
        difference = self.evaluation.difference
        return None if difference is None else (difference.baseline, difference.candidate)

    def metrics_of(self, name: str) -> dict[str, Interval]:
        """Metrics of one column that have a value."""
        method = next(method for method in self.evaluation.methods if method.name == name)
        return {m: interval for m, interval in method.metrics.items() if interval.mean is not None}


@dataclass(frozen=True)
class Spread:
    """A value with its ends."""

    mean: float
    low: float | None
    """Of the 95 % interval, or the smallest of several seeds; None where there is neither."""
    high: float | None
    values: tuple[float, ...]
    """Of the single runs."""


@dataclass(frozen=True)
class Gain:
    """One metric of one group of runs."""

    baseline: Spread
    """Of the policy that GRPO started from."""
    candidate: Spread
    """Of the aligned policy."""
    difference: Spread
    """Candidate minus baseline on the same prompts."""
    percent: Spread | None
    """The difference in percent of |baseline|; None where that is 0."""


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs that differ by their seed alone; often one."""

    label: str
    runs: tuple[RunResult, ...]

    def gain(self, metric: str) -> Gain | None:
        """What the group gained; None where a run of it lacks the metric or a comparison."""
        gains = [_gain(run, metric) for run in self.runs]
        known = [gain for gain in gains if gain is not None]
        if not known or len(known) < len(gains):
            return None
        if len(known) == 1:
            return known[0]
        percents = [gain.percent for gain in known if gain.percent is not None]
        return Gain(
            baseline=_range([gain.baseline for gain in known]),
            candidate=_range([gain.candidate for gain in known]),
            difference=_range([gain.difference for gain in known]),
            percent=_range(percents) if len(percents) == len(known) else None,
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """All runs, grouped."""

    groups: tuple[RunGroup, ...]
    """In the order in which their first runs were given."""
    metrics: tuple[str, ...]
    """To show, in table order."""
    info: Mapping[str, MetricInfo]
    """How each is called and read, as the runs say it."""
    headline: tuple[str, ...]
    """Those of the picture."""
    statements: tuple[str, ...]
    """What a reader must know before comparing: what differs between the runs."""


def compare_runs(folders: Sequence[Path], metrics: Sequence[str] = ()) -> Comparison:
    """Read runs and set them side by side.

    Args:
        folders: Run folders, each with evaluation.json.
        metrics: Metrics to show; none shows all that any run has.

    Raises:
        MissingFileError: If a folder holds no evaluation.json.
        DataError: If a file is not of this form.
        ConfigError: If no run has a metric that is asked for; the nearest is named.
    """
    labels = _labels(folders)
    runs = [read_run(folder, label) for folder, label in zip(folders, labels, strict=True)]
    info: dict[str, MetricInfo] = {}
    for run in runs:
        info |= run.evaluation.metric_info
    known = _known_metrics(runs, info)
    for metric in metrics:
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"--metric must be one that a run has ({', '.join(known)}), got {metric!r}{hint}"
            )
    shown = tuple(dict.fromkeys(metrics)) or known
    headline = tuple(m for m in known if m in HEADLINE or HEADLINE_WORD in m.lower())
    groups = _groups(runs)
    return Comparison(
        groups=groups,
        metrics=shown,
        info=info,
        headline=shown if metrics else headline,
        statements=tuple(_statements(runs, groups)),
    )


def read_run(folder: Path, label: str) -> RunResult:
    """Read one run's result and setting.

    Raises:
        MissingFileError: If it has no evaluation.json.
        DataError: If that is not of this form or version.
    """
    path = folder / EVALUATION
    if not path.is_file():
        raise MissingFileError(
            f"a run to compare must hold {EVALUATION}, got none in {folder}: "
            "run its stage `evaluate` first"
        )
    evaluation = read_evaluation(path)
    config = folder / CONFIG
    # a run without its config stands alone: nobody knows what it differs in
    setting = f"unknown: {folder}"
    if config.is_file():
        values = {k: v for k, v in load_yaml(config).items() if k not in NOT_SETTING}
        setting = json.dumps(_without_seeds(values), sort_keys=True)
    return RunResult(label, evaluation, setting)


def is_gain_good(info: MetricInfo, change: float) -> bool | None:
    """Whether a change of a metric is for the better; None where no direction is, or no change."""
    if info.better is Better.NEITHER or change == 0:
        return None
    return (change > 0) is (info.better is Better.HIGHER)


def _labels(folders: Sequence[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    return [
        name if names.count(name) == 1 else str(folder)
        for name, folder in zip(names, folders, strict=True)
    ]


def _without_seeds(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _without_seeds(child) for key, child in value.items() if key != "seed"}
    if isinstance(value, list):
        return [_without_seeds(child) for child in value]
    return value


def _known_metrics(runs: Sequence[RunResult], info: Mapping[str, MetricInfo]) -> tuple[str, ...]:
    """Metrics with a value in any policy, in table order."""
    found = {
        metric for run in runs for name in run.policies or () for metric in run.metrics_of(name)
    }
    return tuple(metric for metric in info if metric in found)


def _groups(runs: Sequence[RunResult]) -> tuple[RunGroup, ...]:
    by_setting: defaultdict[str, list[RunResult]] = defaultdict(list)
    for run in runs:
        by_setting[run.setting].append(run)
    return tuple(
        RunGroup(
            members[0].label
            if len(members) == 1
            else f"{members[0].label} and {len(members) - 1} more "
            f"seed{'' if len(members) == 2 else 's'}",
            tuple(members),
        )
        for members in by_setting.values()
    )


def _gain(run: RunResult, metric: str) -> Gain | None:
    if run.policies is None or run.evaluation.difference is None:
        return None
    baseline, candidate = (_spread(run.metrics_of(name).get(metric)) for name in run.policies)
    difference = _spread(run.evaluation.difference.metrics.get(metric))
    if baseline is None or candidate is None or difference is None:
        return None
    return Gain(baseline, candidate, difference, _percent(difference, baseline.mean))


def _spread(interval: Interval | None) -> Spread | None:
    if interval is None or interval.mean is None:
        return None
    return Spread(interval.mean, interval.low, interval.high, (interval.mean,))


def _percent(difference: Spread, baseline: float) -> Spread | None:
    """In percent of |baseline|, which is taken as exact: its own spread cancels in the pairs."""
    if baseline == 0:
        return None
    scale = 100 / abs(baseline)
    low = None if difference.low is None else scale * difference.low
    high = None if difference.high is None else scale * difference.high
    return Spread(scale * difference.mean, low, high, (scale * difference.mean,))


def _range(spreads: Sequence[Spread]) -> Spread:
    means = [spread.mean for spread in spreads]
    return Spread(float(np.mean(means)), min(means), max(means), tuple(means))


def _statements(runs: Sequence[RunResult], groups: Sequence[RunGroup]) -> list[str]:
    """What differs between the runs, and who cannot be compared."""
    found: list[str] = []
    facts: dict[str, Callable[[Evaluation], str]] = {
        "gene programs": lambda e: e.program,
        "lengths of cell sentences": lambda e: f"{e.num_genes} genes",
        "variants of Kendall's tau": lambda e: e.variant.value,
        "held-out conditions": lambda e: f"{len(e.conditions)} ({', '.join(sorted(e.conditions))})",
        "numbers of held-out prompts": lambda e: str(e.num_prompts),
    }
    for what, fact in facts.items():
        by_value: defaultdict[str, list[str]] = defaultdict(list)
        for run in runs:
            by_value[fact(run.evaluation)].append(run.label)
        if len(by_value) > 1:
            parts = "; ".join(f"{_cut(v)} in {', '.join(names)}" for v, names in by_value.items())
            found.append(f"These runs have different {what}, so compare with care: {parts}.")
    found += [
        f"{run.label} compared no two policies, so it has no gain."
        for run in runs
        if run.policies is None
    ]
    pairs = {run.policies for run in runs if run.policies is not None}
    if len(pairs) > 1:
        names = ", ".join(
            sorted(f"{candidate} against {baseline}" for baseline, candidate in pairs)
        )
        found.append(f"Not all runs compare the same policies: {names}.")
    found += [
        f"{group.label}: mean and range over {len(group.runs)} runs that differ by seed alone."
        for group in groups
        if len(group.runs) > 1
    ]
    return found


def _cut(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
