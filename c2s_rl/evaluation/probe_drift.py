"""Has a probe for reward hacking drifted? The rule, the sentence, and the rows of the table.

A probe has drifted when it lies further from real cells than where the training started, by more
than a tolerance; without a value for real cells, when it moved from the start by more than that.
A policy that was unlike real cells from the start and stays so is not accused, nor is one that
comes closer. The tolerances are what one would want to be told about, not statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from c2s_rl.evaluation.learning_curve import ProbeValue
from c2s_rl.evaluation.probes import PROBES, Probe
from c2s_rl.evaluation.result import ABSENT, NO_BREAK

# Five points of a share, 0.1 of tau; a length, a tenth of what it is compared with.
SHARE_TOLERANCE = 0.05
TAU_TOLERANCE = 0.1
LENGTH_TOLERANCE = 0.1
# A repeat or an invented word is never right, so little of it is worth a word.
FAULT_TOLERANCE = 0.01
LENGTHS = frozenset({Probe.WORDS, Probe.TOKENS})
FAULTS = frozenset({Probe.REPEATED, Probe.UNKNOWN})


@dataclass(frozen=True)
class ProbeRow:
    """One probe over a run, ready to be written down."""

    label: str
    meaning: str
    real: str
    """Value of real cells, or '-'."""
    values: tuple[str, ...]
    """Of each policy."""
    warning: str
    """What happened, in plain words; '' when nothing did."""


def probe_rows(columns: Sequence[Mapping[Probe, ProbeValue]]) -> list[ProbeRow]:
    """Rows of the table of probes.

    Args:
        columns: Of one policy after the other, the starting one first; the last one is judged
            against it.

    Returns:
        One row a probe that has a value anywhere, in table order.
    """
    rows: list[ProbeRow] = []
    for probe, info in PROBES.items():
        values = [column.get(probe) for column in columns]
        known = [value for value in values if value is not None and value.answers is not None]
        if known:
            rows.append(
                ProbeRow(
                    label=info.label,
                    meaning=info.meaning,
                    real=format_probe(probe, known[-1].real),
                    values=tuple(format_probe(probe, v.answers if v else None) for v in values),
                    warning=drift(probe, known[0], known[-1]),
                )
            )
    return rows


def drift(probe: Probe, start: ProbeValue, now: ProbeValue) -> str:
    """Say what a probe did since the start; '' while it stayed within the tolerance.

    Args:
        probe: Which.
        start: Of the starting policy.
        now: Of the policy in question; its value for real cells counts.
    """
    if start.answers is None or now.answers is None:
        return ""
    reference = start.answers if now.real is None else now.real
    before, after = abs(start.answers - reference), abs(now.answers - reference)
    if after <= before + _tolerance(probe, reference):
        return ""
    info = PROBES[probe]
    way = "rose" if now.answers > start.answers else "fell"
    change = f"{format_probe(probe, start.answers)} to {format_probe(probe, now.answers)}"
    real = "" if now.real is None else f", away from real cells ({format_probe(probe, now.real)})"
    return (
        f"{info.label.capitalize()} {way} from {change}{real}: "
        f"the policy may have learnt a trick ({info.suspicion})."
    )


def format_probe(probe: Probe, value: float | None) -> str:
    """Write a value in the unit of its probe; '-' where there is none."""
    if value is None:
        return ABSENT
    if PROBES[probe].is_share:
        return f"{100 * value:.1f}{NO_BREAK}%"
    return f"{value:.2f}" if probe is Probe.CONTROL_TAU else f"{value:.1f}"


def _tolerance(probe: Probe, reference: float) -> float:
    if probe in LENGTHS:
        return LENGTH_TOLERANCE * reference
    if probe in FAULTS:
        return FAULT_TOLERANCE
    return TAU_TOLERANCE if probe is Probe.CONTROL_TAU else SHARE_TOLERANCE
