"""Metrics of predicted cells, by hand on ten genes."""

import numpy as np
import pytest

from c2s_rl.evaluation.cell_metrics import (
    METRICS,
    Metric,
    has_program_order,
    score_answers,
    score_method,
)


def values(answers, record, yardstick, metric):
    return score_answers(answers, record, yardstick)[metric].values_B.tolist()


def test_every_metric_has_a_label_and_a_meaning():
    assert set(METRICS) == set(Metric)


def test_overlap_counts_the_top_genes_of_the_target_in_any_order(record, answer, yardstick):
    # Reference: the first 4 of the target, 0 1 2 3. The first answer names 3 and 0 of them. The
    # second names 0 and 1 only after its first 4 genes, which are all that it was asked for.
    answers = [answer(3, 9, 0), answer(9, 8, 7, 6, 0, 1)]
    target = record(target=(0, 1, 2, 3, 9, 8))
    assert values(answers, target, yardstick, Metric.GENE_OVERLAP) == [0.5, 0.0]


def test_rates_are_per_word_and_add_up_to_one(record, answer, yardstick):
    # 10 words: 5 genes, 2 repeats, 3 unknown.
    answers = [answer(0, 1, 2, 3, 4, duplicates=2, unknown=3, is_truncated=True), answer()]
    scores = score_answers(answers, record(), yardstick)
    assert scores[Metric.VALIDITY].values_B.tolist() == [0.5, 0.0]
    assert scores[Metric.DUPLICATE_RATE].values_B.tolist() == [0.2, 0.0]
    assert scores[Metric.UNKNOWN_RATE].values_B.tolist() == [0.3, 0.0]
    assert scores[Metric.TRUNCATED_RATE].values_B.tolist() == [1.0, 0.0]
    assert scores[Metric.NUM_WORDS].values_B.tolist() == [10.0, 0.0]


def test_pearson_compares_expressions_read_from_sentences(record, answer, yardstick):
    # Expression by rank is 4 3 2 1. Target 0 1 2 3 -> (4, 3, 2, 1), reversed answer (1, 2, 3, 4):
    # r = -1 on the program. On all ten genes both have sum 10, sum of squares 30 and product sum
    # 4 + 6 + 6 + 4 = 20: r = (20 - 10) / (30 - 10) = 0.5.
    answers = [answer(0, 1, 2, 3), answer(3, 2, 1, 0)]
    assert values(answers, record(), yardstick, Metric.PROGRAM_PEARSON) == pytest.approx([1, -1])
    assert values(answers, record(), yardstick, Metric.ALL_PEARSON) == pytest.approx([1, 0.5])


def test_what_the_target_holds_beyond_a_sentence_costs_no_correlation(record, answer, yardstick):
    target = record(target=(0, 1, 2, 3, 4, 5, 6))
    assert values([answer(0, 1, 2, 3)], target, yardstick, Metric.ALL_PEARSON) == pytest.approx([1])


def test_tau_ranks_the_program_in_answer_and_whole_target(record, answer, yardstick):
    # Target 0 1 2 9 8 3: ranks 1 2 3 6. Answer 1 0 2: ranks 2 1 3 4. One of six pairs discordant.
    target = record(target=(0, 1, 2, 9, 8, 3))
    assert values([answer(1, 0, 2)], target, yardstick, Metric.PROGRAM_TAU) == pytest.approx(
        [4 / 6]
    )


def test_tau_over_all_genes_uses_every_gene(record, answer, yardstick):
    # Target 0 1 of ten genes: pairs ordered = 45 - C(8,2) = 17. Answer 1 0: one pair discordant,
    # the 16 pairs with an absent gene concordant: (16 - 1) / 17.
    target = record(target=(0, 1))
    assert values([answer(1, 0)], target, yardstick, Metric.ALL_TAU) == pytest.approx([15 / 17])


def test_an_answer_without_program_genes_counts_as_zero_and_is_counted(record, answer, yardstick):
    scores = score_answers([answer(7), answer(0, 1, 2, 3)], record(), yardstick)
    for metric in (Metric.PROGRAM_TAU, Metric.PROGRAM_PEARSON):
        assert scores[metric].values_B.tolist() == pytest.approx([0.0, 1.0])
        assert scores[metric].num_flat == 1


def test_a_target_without_program_genes_gives_no_value_to_anyone(record, answer, yardstick):
    target = record(target=(7, 8))
    scores = score_answers([answer(0, 1), answer(7)], target, yardstick)
    assert np.isnan(scores[Metric.PROGRAM_TAU].values_B).all()
    assert scores[Metric.PROGRAM_TAU].num_flat == 0
    assert not np.isnan(scores[Metric.ALL_TAU].values_B).any()
    assert not has_program_order(target, yardstick.program_N)
    assert has_program_order(record(target=(7, 3)), yardstick.program_N)


def test_copying_the_control_shows_no_change_whatever_the_lengths(record, answer, yardstick):
    # Control and target are longer than the four genes of a sentence: without cutting them too,
    # the copy would differ from the control by its length alone.
    prompt = record(target=(3, 2, 1, 0, 9, 8, 7), control=(0, 1, 2, 3, 4, 5, 6, 7))
    answers = [answer(0, 1, 2, 3), answer(3, 2, 1, 0)]
    delta = score_answers(answers, prompt, yardstick)[Metric.PROGRAM_TAU_DELTA]
    assert delta.values_B.tolist() == pytest.approx([0.0, 1.0])
    assert delta.num_flat == 1


def test_change_is_undefined_without_a_control(record, answer, yardstick):
    assert np.isnan(values([answer(0)], record(), yardstick, Metric.PROGRAM_TAU_DELTA)).all()


def test_a_prompt_scores_the_mean_of_its_answers(record, answer, yardstick):
    answers_P = [[answer(0, 1, 2, 3), answer(3, 2, 1, 0)], [answer(7)], []]
    scores = score_method(answers_P, [record(), record("p1"), record("p2")], yardstick)
    np.testing.assert_allclose(scores.values[Metric.PROGRAM_TAU], [0.0, 0.0, np.nan])
    np.testing.assert_allclose(scores.values[Metric.GENE_OVERLAP], [1.0, 0.0, np.nan])
    assert scores.num_flat[Metric.PROGRAM_TAU] == 1
    assert scores.num_answers == 3
