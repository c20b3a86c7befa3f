"""Small cells, prompts and results that the tests of this folder build on."""

from collections.abc import Callable

import numpy as np
import pytest

from c2s_rl.cells.sentence import RankForm, RankModel
from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.cell_metrics import METRICS, Metric, Yardstick
from c2s_rl.evaluation.population_metrics import metric_rows
from c2s_rl.evaluation.rank import TauVariant
from c2s_rl.evaluation.result import (
    Difference,
    Evaluation,
    MethodKind,
    MethodResult,
    PopulationSetting,
)
from c2s_rl.evaluation.verdict import give_verdict
from c2s_rl.types import Completion, Group, ParsedCell, PromptRecord, Split, Task


def int32(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def make_record(  # noqa: PLR0913 - one keyword a field
    prompt_id: str = "p0",
    condition: str = "B cell",
    target: tuple[int, ...] = (0, 1, 2, 3),
    control: tuple[int, ...] = (),
    *,
    split: Split = Split.TEST,
    target_id: str = "",
    context_id: str = "",
    tier: str = "",
) -> PromptRecord:
    return PromptRecord(
        prompt_id=prompt_id,
        prompt=f"A cell of {condition}:",
        target=" target",
        task=Task.PERTURBATION_RESPONSE if control else Task.CELL_GENERATION,
        condition=condition,
        context_id=context_id,
        target_id=target_id,
        split=split,
        target_genes_K=int32(*target),
        context_genes_K=int32(*control),
        tier=tier,
    )


def make_answer(
    *genes: int, duplicates: int = 0, unknown: int = 0, is_truncated: bool = False
) -> ParsedCell:
    return ParsedCell(
        genes_K=int32(*genes),
        num_words=len(genes) + duplicates + unknown,
        num_duplicates=duplicates,
        unknown=("?",) * unknown,
        is_truncated=is_truncated,
    )


def make_group(record: PromptRecord, *texts_and_cells: tuple[str, ParsedCell]) -> Group:
    completions = tuple(Completion(t, (1,), (0.0,), 0, c.is_truncated) for t, c in texts_and_cells)
    return Group(record, (1,), completions, tuple(cell for _, cell in texts_and_cells))


@pytest.fixture
def record() -> Callable[..., PromptRecord]:
    return make_record


@pytest.fixture
def answer() -> Callable[..., ParsedCell]:
    return make_answer


@pytest.fixture
def group() -> Callable[..., Group]:
    return make_group


@pytest.fixture
def yardstick() -> Yardstick:
    """Ten genes, program 0-3, sentences of four genes with expression 4, 3, 2, 1."""
    model = RankModel(form=RankForm.LINEAR, slope=-1.0, intercept=5.0, r2=1.0)
    return Yardstick(int32(0, 1, 2, 3), model, 4, 10, TauVariant.B)


def _interval(mean: float, half: float = 0.02) -> Interval:
    return Interval(mean, mean - half, mean + half, num_prompts=8, num_conditions=2)


def make_method(name: str, kind: MethodKind, tau: float, **others: float) -> MethodResult:
    """A method with a program tau, and 0 for every metric that is not named."""
    means = dict.fromkeys(Metric, 0.0) | {Metric.PROGRAM_TAU: tau}
    means |= {Metric(metric): value for metric, value in others.items()}
    metrics = {metric: _interval(mean) for metric, mean in means.items()}
    return MethodResult(
        name=name,
        kind=kind,
        definition=f"What {name} is.",
        metrics=metrics,
        per_condition=dict.fromkeys(("B cell", "NK <b>$x_i$</b>"), metrics),
        num_answers=16,
    )


def make_difference(half: float = 0.02, **means: float) -> Difference:
    """GRPO - SFT; 0 for every metric that is not named."""
    values = dict.fromkeys(Metric, 0.0) | {Metric(m): value for m, value in means.items()}
    metrics = {metric: _interval(mean, half) for metric, mean in values.items()}
    return Difference(
        candidate="GRPO",
        baseline="SFT",
        metrics=metrics,
        per_condition=dict.fromkeys(("B cell", "NK <b>$x_i$</b>"), metrics),
    )


@pytest.fixture
def method() -> Callable[..., MethodResult]:
    return make_method


@pytest.fixture
def difference() -> Callable[..., Difference]:
    return make_difference


@pytest.fixture
def evaluation() -> Evaluation:
    """GRPO 0.40 against SFT 0.30, with more repeats; a condition whose name is hostile markup."""
    absent = MethodResult(
        name="copy control",
        kind=MethodKind.NULL,
        definition="The control.",
        absent_reason="these prompts hold no control cell to copy",
    )
    methods = (
        make_method("mean cell", MethodKind.NULL, 0.1),
        absent,
        make_method("SFT", MethodKind.POLICY, 0.3, duplicate_rate=0.1, num_words=80.0),
        make_method("GRPO", MethodKind.POLICY, 0.4, duplicate_rate=0.2, num_words=80.0),
        make_method("real cell", MethodKind.CEILING, 0.5),
    )
    gain = make_difference(program_tau=0.1, duplicate_rate=0.1)
    return Evaluation(
        program="MY_PROGRAM",
        program_source="a set",
        program_genes=("G0", "G1", "G2", "G3"),
        num_program_genes_absent=2,
        variant=TauVariant.B,
        num_genes=4,
        samples_per_prompt=2,
        conditions={"B cell": 4, "NK <b>$x_i$</b>": 4},
        unseen_conditions=("B cell",),
        bootstrap_draws=100,
        seed=0,
        skipped={"more than num_prompts": 3},
        methods=methods,
        difference=gain,
        verdict=give_verdict(methods, gain),
    )


HARD, SEEN = "unseen exposure", "seen condition"


@pytest.fixture
def tiered(evaluation: Evaluation) -> Evaluation:
    """The same evaluation in two tiers, with scFID of populations, lower for GRPO by 1 of 5."""
    key = "scfid/all genes"
    conditions = list(evaluation.conditions)
    scfid = {"mean cell": None, "SFT": 5.0, "GRPO": 4.0, "real cell": 1.0}
    methods = []
    for method in evaluation.present:
        value = scfid[method.name]
        own = method.metrics | ({} if value is None else {key: _interval(value, 0.5)})
        methods.append(
            method.model_copy(
                update={
                    "metrics": own,
                    "per_tier": {HARD: own, SEEN: own},
                    "not_applicable": {key: "one cell is no population"} if value is None else {},
                }
            )
        )
    difference = evaluation.difference
    assert difference is not None
    changes = difference.metrics | {key: _interval(-1.0, 0.5)}
    return evaluation.model_copy(
        update={
            "methods": tuple(methods),
            "difference": difference.model_copy(
                update={
                    "metrics": changes,
                    "gains": {Metric.PROGRAM_TAU.value: 1 / 3, key: -0.2},
                    "per_tier": {HARD: changes, SEEN: changes},
                }
            ),
            "tiers": {HARD: 5, SEEN: 3},
            "tier_of": {conditions[0]: HARD, conditions[1]: SEEN},
            "metric_info": dict(METRICS) | {key: metric_rows(["all genes"])[key]},
            "population": PopulationSetting(
                embeddings=("all genes: expression of 10 genes",),
                num_cells={conditions[0]: 16},
                skipped={conditions[1]: 3},
                min_cells=10,
                draws=50,
            ),
            "bootstrap_unit": "donor",
            "bootstrap_note": "6 of donor in the held-out prompts",
        }
    )
