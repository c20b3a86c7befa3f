"""Text answers to numbers, words, table and report; the encoder is a stand-in of known scores."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console

from c2s_rl.evaluation.bertscore import BertScores
from c2s_rl.evaluation.report import RunInfo
from c2s_rl.evaluation.result import MethodKind, Outcome
from c2s_rl.evaluation.summary import Resampling
from c2s_rl.evaluation.text_methods import (
    MOST_COMMON,
    SHUFFLED,
    Answer,
    TextMethod,
    right_answers,
    text_baselines,
)
from c2s_rl.evaluation.text_metrics import TextMetric
from c2s_rl.evaluation.text_report import render_text_report, text_samples
from c2s_rl.evaluation.text_result import TextEvaluation, text_range, text_value
from c2s_rl.evaluation.text_summary import compare_texts, score_texts, summarise_texts
from c2s_rl.evaluation.text_table import text_table
from c2s_rl.evaluation.text_verdict import give_text_verdict
from c2s_rl.types import Completion, Group, ParsedCell, PromptRecord, Split, Task

NO_GENES = np.zeros(0, dtype=np.int32)
RESAMPLING = Resampling(200, 0)


class SameWords:
    """F1 = share of words that both sides have: 1 for the same text, 0 for another."""

    def score(self, candidates: Sequence[str], references: Sequence[str]) -> BertScores:
        pairs = [
            (set(c.split()), set(r.split())) for c, r in zip(candidates, references, strict=True)
        ]
        f1_B = np.array([2 * len(c & r) / max(len(c) + len(r), 1) for c, r in pairs])
        return BertScores(f1_B, f1_B, f1_B)


def record(name: str, target: str, condition: str, split: Split = Split.TEST) -> PromptRecord:
    return PromptRecord(
        prompt_id=name,
        prompt=f"Cells <b>of</b> {name}. Question?",
        target=f" {target}",
        task=Task.QUESTION_ANSWERING,
        condition=condition,
        context_id="",
        target_id="",
        split=split,
        target_genes_K=NO_GENES,
        context_genes_K=NO_GENES,
        keywords=tuple(target.split()[:1]) if condition == "B" else (),
    )


RECORDS = (
    record("b1", "make antibodies", "B"),
    record("b2", "become plasma", "B"),
    record("t1", "kill cells", "T"),
    record("t2", "kill cells", "T"),
)


def method(name: str, *texts: list[str]) -> TextMethod:
    answers = [[Answer(text, is_truncated=text.endswith("!")) for text in own] for own in texts]
    return TextMethod(name, MethodKind.POLICY, f"{name}'s.", answers)


GOOD = method("GRPO", ["make antibodies"], ["become plasma"], ["kill cells"], ["kill now"])
BAD = method("SFT", ["make", "x"], ["x!"], ["", "kill cells"], ["x y z"])


def test_values_are_means_over_answers_then_prompts_then_conditions() -> None:
    scored = score_texts(BAD, RECORDS, SameWords())
    values = {metric: scored.values[metric].tolist() for metric in TextMetric}
    # b1: 'make' has 1 of 1 words, the target 1 of 2 -> 2/3, and 0; t1: 0 and 1
    assert values[TextMetric.BERTSCORE] == pytest.approx([1 / 3, 0, 0.5, 0])
    assert values[TextMetric.KEYWORD_RECALL][:2] == [0.5, 0.0]
    assert np.isnan(values[TextMetric.KEYWORD_RECALL][2:]).all()
    assert values[TextMetric.EXACT_LABEL] == [0, 0, 0.5, 0]
    assert values[TextMetric.NUM_WORDS] == [1, 1, 1, 3]
    assert values[TextMetric.TRUNCATED_RATE] == [0, 1, 0, 0]
    assert values[TextMetric.EMPTY_RATE] == [0, 0, 0.5, 0]
    result = summarise_texts(scored, RECORDS, RESAMPLING)
    assert result.metrics[TextMetric.BERTSCORE].mean == pytest.approx((1 / 6 + 1 / 4) / 2)
    assert result.per_condition["T"][TextMetric.BERTSCORE].mean == pytest.approx(0.25)
    # Only B has keywords: T neither counts as 0 nor as 1.
    assert result.metrics[TextMetric.KEYWORD_RECALL].num_conditions == 1
    assert result.num_answers == 6


def test_null_baselines_know_neither_cells_nor_question() -> None:
    train = [record(f"r{i}", t, "B", Split.TRAIN) for i, t in enumerate(["b", "a", "a", "b", "c"])]
    common, shuffled = text_baselines(RECORDS, train, num_draws=2, seed=0)
    assert (common.name, shuffled.name) == (MOST_COMMON, SHUFFLED)
    # a and b are equally frequent: the first in the alphabet, everywhere
    assert {a.text for answers in common.answers_P for a in answers} == {" a"}
    # of other conditions, never the prompt's own; T has one answer only
    assert [{a.text for a in answers} for answers in shuffled.answers_P[:2]] == [
        {" kill cells"}
    ] * 2
    assert {a.text for a in shuffled.answers_P[2]} == {" make antibodies", " become plasma"}
    again = text_baselines(RECORDS, train, num_draws=2, seed=0)[1]
    assert again.answers_P == shuffled.answers_P


def test_a_baseline_that_cannot_answer_says_why() -> None:
    common, shuffled = text_baselines(RECORDS[2:], [], num_draws=2, seed=0)
    assert common.absent_reason == "the corpus has no training prompt of this task"
    assert shuffled.absent_reason == "no other held-out question has another answer"
    result = summarise_texts(score_texts(common, RECORDS[2:], SameWords()), RECORDS[2:], RESAMPLING)
    assert result.metrics[TextMetric.BERTSCORE].mean is None


def test_the_right_answer_is_the_ceiling() -> None:
    scored = score_texts(right_answers(RECORDS), RECORDS, SameWords())
    assert scored.values[TextMetric.BERTSCORE].tolist() == [1.0] * 4
    assert scored.values[TextMetric.EXACT_LABEL].tolist() == [1.0] * 4


def evaluation(*methods: TextMethod) -> TextEvaluation:
    everything = [*text_baselines(RECORDS, [], num_draws=1, seed=0), *methods]
    scored = {m.name: score_texts(m, RECORDS, SameWords()) for m in everything}
    results = tuple(summarise_texts(one, RECORDS, RESAMPLING) for one in scored.values())
    difference = None
    if len(methods) > 1:
        difference = compare_texts(scored["GRPO"], scored["SFT"], RECORDS, RESAMPLING)
    return TextEvaluation(
        task=Task.QUESTION_ANSWERING,
        encoder="words",
        samples_per_prompt=2,
        conditions={"B": 2, "T": 2},
        unseen_conditions=("T",),
        num_unseen_answers=1,
        bootstrap_draws=200,
        seed=0,
        skipped={"of other conditions": 3},
        methods=results,
        difference=difference,
        verdict=give_text_verdict(results, difference),
    )


def test_a_gain_is_called_one_when_the_paired_interval_excludes_zero() -> None:
    verdict = evaluation(BAD, GOOD).verdict
    assert verdict.outcome is Outcome.BETTER
    # GRPO: (1 + 1) / 2 and (1 + 0.5) / 2 -> 0.875; SFT 0.208
    assert verdict.headline.startswith(
        "GRPO is better than SFT in BERTScore F1: 0.875 against 0.208, difference +0.667"
    )
    assert verdict.price.startswith("None of these became measurably worse")
    assert verdict.scale.startswith("For scale, BERTScore F1: shuffled 0.")


def test_a_loss_and_its_price_are_named() -> None:
    swapped = (method("SFT", *texts(GOOD)), method("GRPO", *texts(BAD)))
    verdict = evaluation(*swapped).verdict
    assert verdict.outcome is Outcome.WORSE
    assert verdict.is_at_a_price
    assert "keyword recall 100.0" in verdict.price


def texts(of: TextMethod) -> list[list[str]]:
    return [[answer.text for answer in own] for own in of.answers_P]


def test_one_policy_alone_is_described() -> None:
    found = evaluation(GOOD)
    assert found.difference is None
    assert found.verdict.headline == (
        "No two policies were compared: GRPO has a BERTScore F1 of 0.875."
    )


def test_it_survives_its_file() -> None:
    found = evaluation(BAD, GOOD)
    assert TextEvaluation.model_validate_json(found.model_dump_json()) == found


def test_table_shows_means_intervals_and_what_is_missing() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(text_table(evaluation(BAD, GOOD)))
    shown = " ".join(console.export_text().split())  # captions wrap
    assert "question_answering, 4 held-out prompts, 2 conditions" in shown
    assert "0.875" in shown
    assert "No most common: the corpus has no training prompt of this task." in shown
    assert "3 prompts left out: of other conditions." in shown
    assert "BERTScore by words." in shown


def test_values_are_written_in_their_unit() -> None:
    assert text_value(TextMetric.KEYWORD_RECALL, 0.125) == "12.5\N{NO-BREAK SPACE}%"
    assert text_value(TextMetric.KEYWORD_RECALL, 0.125, is_signed=True) == "+12.5 points"
    assert text_value(TextMetric.BERTSCORE, None) == "-"
    interval = evaluation(GOOD).methods[-1].metrics[TextMetric.BERTSCORE]
    assert text_range(TextMetric.BERTSCORE, interval).count(" to ") == 1


def answered(one: PromptRecord, *answers: str) -> Group:
    completions = tuple(Completion(text, (1,), (0.0,), 0, is_truncated=False) for text in answers)
    cells = tuple(ParsedCell(NO_GENES, 0, 0, (), is_truncated=False) for _ in answers)
    return Group(one, (1,), completions, cells)


def test_report_stands_alone_and_escapes_what_the_model_wrote() -> None:
    groups = {
        "SFT": [answered(r, "<script>alert(1)</script>") for r in RECORDS],
        "GRPO": [answered(r, "make 🧬 " + "x" * 1000) for r in RECORDS],
    }
    html = render_text_report(
        evaluation(BAD, GOOD),
        RunInfo("toy", "Toy.", 0, "2026-01-31", {"torch": "2"}, "name: toy"),
        None,
        text_samples(groups, 2),
    )
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "Cells &lt;b&gt;of" in html
    assert "make 🧬" in html
    assert "x" * 700 not in html
    assert "(keywords: 1 of 1)" in html
    assert "http" not in html.replace("https://www.w3.org", "")
    assert html.count('<article class="sample">') == 2
    assert 'class="good"' in html
    assert "not seen in training" in html
