"""Population rewards: each completion's share in the distance of its condition."""

import math

import numpy as np
import pytest

from c2s_rl.errors import ConfigError, DataError
from c2s_rl.evaluation.distances import energy_distance, mmd, wasserstein
from c2s_rl.evaluation.frechet import scfid
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.models.cell_embedder import CellEmbedderConfig, ExpressionEmbedder
from c2s_rl.types import Split
from rewards import load_reward
from rewards.base import RewardScope
from rewards.checking import raise_failures, score_checked
from tests.reference_cells import (
    RANK_MODEL,
    VOCABULARY,
    int32,
    make_batch,
    make_group,
    make_material,
    make_record,
    random_cells,
)

DISTANCES = {
    "mmd": lambda real, generated: mmd(real, generated, is_unbiased=False),
    "energy": lambda real, generated: energy_distance(real, generated, is_unbiased=False),
    "wasserstein": wasserstein,
    "scfid": scfid,
}
each = pytest.mark.parametrize("name", DISTANCES)
REAL = random_cells(0, 20)
GENERATED = random_cells(1, 9)


def embed(cells):
    embedder = ExpressionEmbedder(CellEmbedderConfig(), VOCABULARY, RANK_MODEL)
    return embedder.embed([int32(cell) for cell in cells])


def score(name, batch, **options):
    return raise_failures(score_checked(load_reward(name, options), batch, name))


@each
def test_reward_is_the_scaled_distance_without_the_completion_minus_that_of_all(name):
    material = make_material({"a": REAL})
    result = score(name, make_batch(material, make_group(GENERATED, make_record("a"))))
    real, generated = embed(REAL), embed(GENERATED)
    of_all = DISTANCES[name](real, generated)
    expected = [
        (9 - 1) * (DISTANCES[name](real, np.delete(generated, i, axis=0)) - of_all)
        for i in range(9)
    ]
    np.testing.assert_allclose(result.scores, expected, atol=1e-9)
    assert result.diagnostics[name] == pytest.approx((of_all,) * 9)
    assert result.diagnostics["generated_cells"] == (9.0,) * 9
    assert result.diagnostics["real_cells"] == (20.0,) * 9


@each
def test_groups_of_one_condition_are_one_population_and_others_are_not(name):
    material = make_material({"a": REAL, "b": random_cells(7, 6)})
    first, second = GENERATED[:4], GENERATED[4:]
    whole = score(name, make_batch(material, make_group(GENERATED, make_record("a"))))
    batch = make_batch(
        material,
        make_group(first, make_record("a")),
        make_group(random_cells(8, 3), make_record("b")),
        make_group(second, make_record("a")),
    )
    split = score(name, batch)
    np.testing.assert_allclose(split.scores[:4] + split.scores[7:], whole.scores, atol=1e-9)
    assert split.diagnostics["real_cells"][4:7] == (6.0,) * 3


@each
def test_order_of_groups_has_no_influence(name):
    material = make_material({"a": REAL})
    parts = [make_group(GENERATED[:4], make_record("a")), make_group(GENERATED[4:], make_record())]
    straight = score(name, make_batch(material, *parts)).scores
    turned = score(name, make_batch(material, *parts[::-1])).scores
    np.testing.assert_allclose(turned, straight[4:] + straight[:4], atol=1e-9)
    assert score(name, make_batch(material, *parts)).scores == straight


@each
def test_cells_of_a_kind_that_is_not_real_score_less(name):
    # real cells use the first six genes; half of the answers do, the others use the last six
    material = make_material({"a": random_cells(0, 20, 6)})
    alike = random_cells(2, 6, 6)
    unlike = [[11 - gene for gene in cell] for cell in random_cells(3, 6, 6)]
    scores = score(name, make_batch(material, make_group(alike + unlike, make_record("a")))).scores
    assert min(scores[:6]) > max(scores[6:])


@each
def test_empty_answers_are_bad_cells_and_not_errors(name):
    material = make_material({"a": random_cells(0, 20, 6)})
    cells = [*random_cells(2, 6, 6), *[[]] * 6]
    scores = score(name, make_batch(material, make_group(cells, make_record("a")))).scores
    assert np.mean(scores[:6]) > max(scores[6:])
    silent = score(name, make_batch(material, make_group([[], [], []], make_record("a"))))
    assert all(math.isfinite(value) for value in silent.scores)


@each
@pytest.mark.parametrize(
    ("real", "generated", "record"),
    [
        (REAL, GENERATED[:1], make_record("a")),  # one completion has no siblings
        (REAL, GENERATED, make_record("b")),  # no real cells of this condition
        (REAL, GENERATED, make_record("a", split=Split.TEST)),  # none on this side of the split
        (REAL, GENERATED, make_record("a", target=())),  # the answer is text
    ],
)
def test_without_siblings_or_real_cells_completions_abstain(name, real, generated, record):
    batch = make_batch(make_material({"a": real}), make_group(generated, record))
    result = score(name, batch)
    assert result.scores == (None,) * len(generated)
    assert all(math.isnan(value) for value in result.diagnostics[name])


def test_real_cells_that_do_not_suffice_for_a_distance_abstain():
    one = make_batch(make_material({"a": REAL[:1]}), make_group(GENERATED, make_record("a")))
    equal = make_batch(make_material({"a": REAL[:1] * 3}), make_group(GENERATED, make_record("a")))
    for name, batch in (("scfid", one), ("mmd", one), ("mmd", equal)):
        assert score(name, batch).scores == (None,) * 9
    for name, batch in (("energy", one), ("wasserstein", one), ("energy", equal), ("scfid", equal)):
        assert None not in score(name, batch).scores


@each
def test_no_completion_gives_no_score(name):
    assert score(name, make_batch(make_material({"a": REAL}))).scores == ()


@pytest.mark.parametrize("name", ["mmd", "energy"])
def test_ten_thousand_completions_are_measured_in_parts(name):
    material = make_material({"a": REAL})
    group = make_group(random_cells(3, 100) * 100, make_record("a"))
    result = score(name, make_batch(material, group))
    assert all(math.isfinite(value) for value in result.scores)
    assert set(result.diagnostics["generated_cells"]) == {250.0}  # 40 parts of at most 256


def test_more_real_cells_than_asked_for_are_drawn_by_the_seed():
    group = make_group(GENERATED, make_record("a"))
    scores = [
        score("energy", make_batch(make_material({"a": REAL}, seed=seed), group), num_real=5)
        for seed in (0, 0, 1)
    ]
    assert scores[0].diagnostics["real_cells"] == (5.0,) * 9
    assert scores[0].scores == scores[1].scores
    assert scores[0].scores != scores[2].scores


def test_real_cells_are_embedded_once_for_all_processes_with_a_cache(tmp_path, monkeypatch):
    num_embedded = []
    embed_cells = ExpressionEmbedder.embed

    def counting(self, cells):
        num_embedded.append(len(cells))
        return embed_cells(self, cells)

    monkeypatch.setattr(ExpressionEmbedder, "embed", counting)
    material = make_material({"a": REAL}, cache=tmp_path)
    batch = make_batch(material, make_group(GENERATED, make_record("a")))
    for name in ("mmd", "energy"):  # two rewards, as in two processes
        reward = load_reward(name, {})
        for _ in range(2):
            reward.score(batch)
    assert num_embedded.count(len(REAL)) == 1
    assert num_embedded.count(len(GENERATED)) == 4


def test_other_genes_are_not_served_from_the_cache(tmp_path):
    sets = tmp_path / "sets.gmt"
    sets.write_text("LOW\tx\tG0\tG1\tG2\nHIGH\tx\tG9\tG10\tG11\n", encoding="utf-8")
    material = make_material({"a": REAL}, cache=tmp_path / "cache")
    batch = make_batch(material, make_group(GENERATED, make_record("a")))
    values = {
        program: score("energy", batch, embedder={"programs": [f"{sets}:{program}"]})
        for program in ("LOW", "HIGH")
    }
    alone = make_batch(make_material({"a": REAL}), *batch.groups)
    again = score("energy", alone, embedder={"programs": [f"{sets}:HIGH"]})
    assert values["HIGH"].scores == again.scores != values["LOW"].scores


def test_options_reach_the_distance():
    batch = make_batch(make_material({"a": REAL}), make_group(GENERATED, make_record("a")))
    real, generated = embed(REAL), embed(GENERATED)
    w1 = score("wasserstein", batch, order=1).diagnostics["wasserstein"][0]
    assert w1 == pytest.approx(wasserstein(real, generated, order=1))
    shrunk = score("scfid", batch, shrinkage=0.5).diagnostics["scfid"][0]
    assert shrunk == pytest.approx(scfid(real, generated, shrinkage=0.5))


def test_a_program_without_known_gene_is_named(tmp_path):
    sets = tmp_path / "sets.gmt"
    sets.write_text("OTHER\tx\tXIST\tTP53\n", encoding="utf-8")
    batch = make_batch(make_material({"a": REAL}), make_group(GENERATED, make_record("a")))
    reward = load_reward("mmd", {"embedder": {"programs": [f"{sets}:OTHER"]}})
    with pytest.raises(
        DataError, match="share genes with the vocabulary, got none of the 2 of OTHER"
    ):
        reward.score(batch)


@each
def test_a_run_without_cells_and_a_wrong_option_are_named(name):
    batch = make_batch(RewardMaterial(), make_group(GENERATED, make_record("a")))
    with pytest.raises(DataError, match="needs cell and prompt shards, got cells=None"):
        load_reward(name, {}).score(batch)
    with pytest.raises(ConfigError, match=r"got 'num_reel'.*did you mean 'num_real'"):
        load_reward(name, {"num_reel": 3})
    assert load_reward(name, {}).scope is RewardScope.CONDITION
