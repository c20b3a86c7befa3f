"""The Kendall reward, by hand and against scipy."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from c2s_rl.cells.parse import parse_cell
from c2s_rl.cells.programs import load_program
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.errors import ConfigError, DataError, RewardError
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.pipeline import convert, corpus
from c2s_rl.types import Completion, Group, ParsedCell, PromptRecord, Split, Task
from rewards import load_reward
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.checking import raise_failures, score_checked
from rewards.composite import CompositeReward, RewardSpec

PROGRAM = "hallmark_interferon_alpha_response"
# the first five genes of the program, then three others
SYMBOLS = (*load_program(PROGRAM).symbols[:5], "X1", "X2", "X3")
VOCABULARY = Vocabulary(SYMBOLS, SYMBOLS)
A, B, C, D, E, X1, X2, X3 = SYMBOLS


def make_group(texts, *, target=(0, 1, 2, 3, 4), context=(), condition="c"):
    record = PromptRecord(
        "p1",
        "?",
        " !",
        Task.CELL_GENERATION,
        condition,
        "",
        "",
        Split.TRAIN,
        np.array(target, dtype=np.int32),
        np.array(context, dtype=np.int32),
    )
    completions = tuple(Completion(t, (1,), (0.0,), 0, is_truncated=False) for t in texts)
    cells = tuple(parse_cell(t, VOCABULARY, is_truncated=False) for t in texts)
    return Group(record, (1,), completions, cells)


def scores(texts, options=None, **kwargs):
    reward = load_reward("kendall", {"program": PROGRAM} | (options or {}))
    return list(reward.score(RewardBatch((make_group(texts, **kwargs),), VOCABULARY)).scores)


def test_right_order_scores_one_and_reversed_minus_one():
    assert scores([f"{A} {B} {C} {D} {E}", f"{E} {D} {C} {B} {A}"]) == pytest.approx([1.0, -1.0])


def test_genes_that_were_not_written_share_the_last_rank():
    # written A B: ranks 1 2 3 3 3 against 1 2 3 4 5; scipy's tau-b counts the three ties
    expected = kendalltau([1, 2, 3, 3, 3], [1, 2, 3, 4, 5]).statistic
    assert scores([f"{A} {B}"]) == [pytest.approx(expected)]


def test_a_repeated_or_unknown_word_earns_nothing():
    # without the repeat and the invented symbol both are the sentence A B C
    plain, noisy = scores([f"{A} {B} {C}", f"{A} {A} {B} NOGENE {A} {C}"])
    assert noisy == plain


def test_no_program_gene_scores_zero():
    assert scores([f"{X1} {X2}", ""]) == [0.0, 0.0]


def test_target_without_program_genes_abstains():
    assert scores([f"{A} {B}", f"{B} {A}"], target=(5, 6)) == [None, None]


def test_variant_a_is_the_printed_formula():
    # A B against 1..5: 10 pairs, 3 tied, 7 concordant: 7 / 10
    assert scores([f"{A} {B}"], {"variant": "a"}) == [pytest.approx(0.7)]


def test_delta_form_gives_nothing_for_copying_the_control():
    control = (4, 3, 2, 1, 0)
    copied, right = scores(
        [f"{E} {D} {C} {B} {A}", f"{A} {B} {C} {D} {E}"],
        {"form": "delta", "num_genes": 5},
        context=control,
    )
    assert (copied, right) == (0.0, pytest.approx(1.0))


def test_cutting_makes_long_rankings_comparable_with_short_sentences():
    # the first 2 genes of target and control: A B and C A; a right answer A B moves exactly so
    control = (2, 0, 3, 4, 1, 5, 6, 7)
    options = {"form": "delta", "num_genes": 2}
    right, copied = scores([f"{A} {B}", f"{C} {A}"], options, context=control)
    assert (right, copied) == (pytest.approx(1.0), 0.0)


def test_delta_form_without_a_control_cell_is_a_reward_error():
    reward = load_reward("kendall", {"program": PROGRAM, "form": "delta", "num_genes": 5})
    batch = RewardBatch((make_group([A]),), VOCABULARY)
    with pytest.raises(RewardError, match="needs a control cell in the prompt, got none in prompt"):
        raise_failures(score_checked(reward, batch, "kendall"))


def test_baseline_form_is_the_gain_over_the_control():
    # control A B C E D against the target A B C D E: one of ten pairs reversed, tau 0.8
    copied, right, reversed_ = scores(
        [f"{A} {B} {C} {E} {D}", f"{A} {B} {C} {D} {E}", f"{E} {D} {C} {B} {A}"],
        {"form": "baseline", "num_genes": 5},
        context=(0, 1, 2, 4, 3),
    )
    assert copied == 0.0
    assert (right, reversed_) == (pytest.approx(0.2), pytest.approx(-1.8))


def test_baseline_form_compares_with_the_control_as_it_is_shown():
    # cut to 3 genes the control is C B A; the copy of what the prompt shows gains nothing
    copied, right = scores(
        [f"{C} {B} {A}", f"{A} {B} {C}"],
        {"form": "baseline", "num_genes": 3},
        context=(2, 1, 0, 3, 4),
    )
    # target A B C (D and E share rank 4): 3 of 9 untied pairs reversed, 6 - 3 over 9
    assert (copied, right) == (0.0, pytest.approx(1 - 3 / 9))


@pytest.mark.parametrize("form", ["delta", "baseline"])
def test_forms_with_a_control_need_the_length_of_sentences(form):
    with pytest.raises(ConfigError, match=f"the {form} form needs num_genes, got None"):
        load_reward("kendall", {"program": PROGRAM, "form": form})


@pytest.fixture
def two_programs(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text(f"FIRST\t\t{A}\t{B}\nSECOND\t\t{C}\t{D}\t{E}\tABSENT\nOTHER\t\t{X1}\t{X2}\n")
    return [f"{path}:FIRST", f"{path}:SECOND", f"{path}:OTHER"]


def test_several_programs_are_averaged_and_told_apart(two_programs):
    options = {"programs": two_programs}
    batch = RewardBatch((make_group([f"{B} {A} {C} {D} {E}", f"{C} {D} {E}", ""]),), VOCABULARY)
    result = load_reward("kendall", options).score(batch)
    # FIRST reversed: -1, SECOND right: 1. Without A and B the first is flat: 0. The target holds
    # no gene of OTHER, which is left out of the mean.
    assert result.scores == (pytest.approx(0.0), pytest.approx(0.5), 0.0)
    assert np.isnan(result.diagnostics["tau_OTHER"]).all()
    assert {name: v for name, v in result.diagnostics.items() if name != "tau_OTHER"} == {
        "program_genes": (5.0, 3.0, 0.0),
        "program_coverage": (5 / 7, 3 / 7, 0.0),
        "tau_FIRST": (-1.0, 0.0, 0.0),
        "tau_SECOND": (1.0, 1.0, 0.0),
    }
    checked = score_checked(load_reward("kendall", options), batch, "kendall")
    assert (checked.scores, checked.failures) == (result.scores, {})


def test_the_union_of_programs_is_one_order(two_programs):
    options = {"programs": two_programs[:2], "several": "union"}
    # B A C D E against A B C D E: one of ten pairs reversed
    assert load_reward("kendall", options).score(
        RewardBatch((make_group([f"{B} {A} {C} {D} {E}"]),), VOCABULARY)
    ).scores == (pytest.approx(0.8),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs either program or programs, got neither"),
        ({"program": PROGRAM, "programs": [PROGRAM]}, "got both"),
        ({"programs": [PROGRAM, PROGRAM]}, "names of their own, got"),
    ],
)
def test_programs_are_named_once(options, message):
    with pytest.raises(ConfigError, match=message):
        load_reward("kendall", options)


def test_a_program_without_known_genes_is_a_reward_error():
    vocabulary = Vocabulary(("X1", "X2"), ("X1", "X2"))
    reward = load_reward("kendall", {"program": PROGRAM})
    checked = score_checked(reward, RewardBatch((make_group([""]),), vocabulary), "kendall")
    with pytest.raises(RewardError, match="must share genes with the vocabulary, got none of the"):
        raise_failures(checked)


@pytest.fixture
def material(tmp_path):
    """Two control and four treated cells; their ranks differ, their mean is A over B over C."""
    treated = [[9, 2, 1], [9, 1, 2], [1, 9, 2], [9, 8, 1]]
    counts = np.array([[1, 2, 9], [2, 1, 9], *treated], dtype=np.float32)
    obs = pd.DataFrame(
        {"kind": ["cell"] * 6, "drug": ["none"] * 2 + ["IFN"] * 4},
        index=[f"c{i}" for i in range(6)],
    )
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=[A, B, C]))
    adata.write_h5ad(tmp_path / "a.h5ad")
    convert.run(
        convert.ConvertConfig(path=str(tmp_path / "a.h5ad"), obs=("kind", "drug")),
        tmp_path / "cells",
    )
    config = corpus.CorpusConfig(
        tasks=(Task.PERTURBATION_RESPONSE,),
        cell_type_column="kind",
        condition_column="drug",
        control="none",
        reward_target="pseudobulk",
        num_genes=3,
    )
    corpus.run(config, tmp_path / "cells", tmp_path / "corpus")
    return RewardMaterial(cells=tmp_path / "cells", corpus=tmp_path / "corpus")


def test_pseudobulk_target_is_the_mean_of_the_real_cells_of_the_condition(material):
    reward = load_reward("kendall", {"program": PROGRAM, "target": "pseudobulk"})
    prompts = read_prompts(material.corpus)
    completion = Completion("", (1,), (0.0,), 0, is_truncated=False)
    for record in prompts.records:
        # The prompt's own target is a single cell here; the corpus wrote the mean of all four.
        single = replace(record, target_genes_K=np.array([2, 1, 0], dtype=np.int32))
        cell = ParsedCell(np.array([0, 1, 2], dtype=np.int32), 3, 0, (), is_truncated=False)
        group = Group(single, (1,), (completion,), (cell,))
        batch = RewardBatch((group,), prompts.vocabulary, material)
        assert reward.score(batch).scores == (pytest.approx(1.0),)
        reference = material.reference.pseudobulk(record, prompts.vocabulary)
        np.testing.assert_array_equal(reference, record.target_genes_K)
    stranger = replace(prompts.records[0], condition="other")
    with pytest.raises(DataError, match="real cells of the condition, got none of 'other' on the"):
        material.reference.pseudobulk(stranger, prompts.vocabulary)


def test_validity_counts_each_known_gene_once():
    # 2 distinct genes, 4 words, 2 genes wanted: 2 / 4; an empty answer earns 0
    reward = load_reward("validity", {"num_genes": 2})
    batch = RewardBatch((make_group([f"{A} {A} NOGENE {B}", f"{A} {B}", ""]),), VOCABULARY)
    assert reward.score(batch).scores == (0.5, 1.0, 0.0)


class _Broken:
    scope = RewardScope.GROUP

    def __init__(self, answer):
        self._answer = answer

    def score(self, _batch):
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ZeroDivisionError("oops"), "must not raise, got ZeroDivisionError: oops in reward 'mine'"),
        (RewardResult((1.0,)), "one value per completion, got 1 scores for 2"),
        (RewardResult((1.0, float("nan"))), "finite numbers, got nan"),
        (RewardResult((1.0, "2")), "finite numbers, got '2'"),
        ([1.0, 2.0], "must return a RewardResult"),
        (RewardResult((1.0, 2.0), {"d": (1.0,)}), "got 1 d for 2"),
    ],
)
def test_a_failing_plugin_is_an_error_and_never_a_number(answer, message):
    batch = RewardBatch((make_group([A, B]),), VOCABULARY)
    with pytest.raises(RewardError, match=message):
        raise_failures(score_checked(_Broken(answer), batch, "mine"))


class ConditionMean:
    """Scores every completion by the number of genes that its whole condition wrote."""

    scope = RewardScope.CONDITION

    class Options(FrozenConfig):
        """None."""

    def __init__(self, options):
        pass

    def score(self, batch):
        total = float(sum(len(sample.cell.genes_K) for sample in batch.samples()))
        return RewardResult((total,) * len(batch))


def test_composite_weighs_sums_and_gives_conditions_whole():
    composite = CompositeReward(
        [
            RewardSpec(name="kendall", weight=2.0, options={"program": PROGRAM}),
            RewardSpec(name=f"{__name__}:ConditionMean", weight=0.1, label="genes"),
        ],
        VOCABULARY,
    )
    groups = [
        make_group([f"{A} {B} {C} {D} {E}"], condition="x"),
        make_group([f"{A}"], condition="y"),
        make_group([f"{E} {D} {C} {B} {A}"], condition="x"),
    ]
    scored = composite.score(groups)
    # condition x wrote 5 + 5 genes in groups 0 and 2, y wrote 1
    assert [s.components["genes"] for s in scored] == [(10.0,), (1.0,), (10.0,)]
    assert scored[0].rewards_G == (pytest.approx(2.0 * 1.0 + 0.1 * 10.0),)
    assert scored[2].rewards_G == (pytest.approx(-2.0 + 1.0),)


def test_two_rewards_of_one_name_need_labels():
    spec = RewardSpec(name="kendall", options={"program": PROGRAM})
    with pytest.raises(ConfigError, match="its own label, got 'kendall', 'kendall'"):
        CompositeReward([spec, spec], VOCABULARY)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kendal", {}, "got 'kendal'; did you mean 'kendall'"),
        ("no.such.module:Thing", {}, "must be importable, got 'no.such.module:Thing'"),
        ("rewards.base:RewardSample", {}, "be a class with scope = .* got no scope; no Opt"),
        ("kendall", {"programm": PROGRAM}, "got 'programm'.*did you mean 'program'"),
        ("kendall", {"program": "hallmark_apoptosi"}, "hallmark_apoptosis"),
    ],
)
def test_a_wrong_name_or_option_says_what_is_right(name, options, message):
    with pytest.raises(ConfigError, match=message):
        load_reward(name, options)
