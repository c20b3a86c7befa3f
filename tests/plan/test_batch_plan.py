"""Plans: one by hand, what does not fit and what would, and the H100 plans of published models."""

from dataclasses import replace

import pytest

from c2s_rl.errors import PlanError
from c2s_rl.plan.batch_plan import find_remedies, fits, make_plan
from c2s_rl.plan.layouts import Layout, LayoutPlan, Misfit, Sharing, plan_layout, possible_layouts
from c2s_rl.plan.shape import PUBLISHED
from c2s_rl.plan.timing import Job, engine_step_seconds, exchange_seconds, sync_seconds
from tests.plan.fixtures import (
    full_rates,
    h100_job,
    plain_method,
    round_cluster,
    tiny_shape,
    tiny_work,
)

N = 228_096
SPLIT_2_2 = Layout(Sharing.SPLIT, 2, 2, 1)
BF16 = {"element_bytes": 2, "micro_batch_tokens": 16_384}


def tiny_job(*, num_devices: int = 4, memory_gb: float = 1.0, **method: int | bool) -> Job:
    cluster = round_cluster(num_devices, memory_gb=memory_gb)
    return Job(tiny_shape(), tiny_work(), plain_method(**method), cluster, full_rates())


def planned(job: Job, layout: Layout) -> LayoutPlan:
    found = plan_layout(job, layout)
    assert isinstance(found, LayoutPlan)
    return found


def test_seconds_of_a_split_by_hand():
    """2 ranks and 2 engines at 1 TFLOP/s, 100 GB/s of memory, 10 GB/s between them."""
    plan = planned(tiny_job(), SPLIT_2_2)
    # Each rank has 2 of 4 groups; a group's forward is 5,043,200 FLOPs, a projection of its 15
    # scored tokens 1,920,000 (test_flops.py).
    assert plan.learn.forward == pytest.approx(2 * 5_043_200 / 1e12)
    assert plan.learn.backward == pytest.approx(4 * 5_043_200 / 1e12)
    assert plan.learn.reference == pytest.approx(2 * 5_043_200 / 1e12)
    assert plan.learn.head == pytest.approx(2 * 4 * 1_920_000 / 1e12)
    # ZeRO-0: an all-reduce of 4 N bytes among 2: 2 x 1/2 x 4 N past each, at 10 GB/s
    assert plan.learn.exchange == pytest.approx(4 * N / 1e10)
    # Adam in float32: moments 8 N and weights 4 N, read and written, at 100 GB/s
    assert plan.learn.optimiser == pytest.approx(2 * (8 * N + 4 * N) / 1e11)
    # An engine prefills 2 prompts of 1,994,240 FLOPs; but reading 4 N bytes of weights takes longer
    assert 4 * N / 1e11 > 2 * 1_994_240 / 1e12
    assert plan.rollout.prefill == pytest.approx(4 * N / 1e11)
    # All 6 sequences run at once, so 5 engine steps; each reads the weights and 6 x KV of
    # 10 + 5 // 2 = 12 tokens, 2 layers x 2 x 64 x 4 = 1,024 bytes each.
    assert plan.rollout.decode == pytest.approx(5 * (4 * N + 6 * 12 * 1024) / 1e11)
    assert plan.sync_seconds == pytest.approx(4 * N / 1e10)
    assert plan.switch_seconds == 0.0
    parts = (plan.rollout.total, plan.learn.total)
    assert plan.step_seconds == pytest.approx(sum(parts) + plan.sync_seconds)
    assert plan.async_step_seconds == pytest.approx(max(parts) + plan.sync_seconds)


def test_an_engine_with_room_for_two_sequences_takes_three_times_the_steps():
    all_at_once = planned(tiny_job(), SPLIT_2_2)
    in_waves = planned(replace(tiny_job(), max_num_seqs=2), SPLIT_2_2)
    # 6 sequences of 5 tokens, 2 at a time: 15 steps of weights and 2 x 12 KV tokens
    assert in_waves.num_sequences == 2
    assert in_waves.rollout.decode == pytest.approx(15 * (4 * N + 2 * 12 * 1024) / 1e11)
    assert all_at_once.rollout.decode < in_waves.rollout.decode


def test_tensor_parallelism_reads_faster_and_pays_for_exchanges():
    job = tiny_job()
    # half of the bytes each, and two all-reduces a layer: 2 x 1/2 x 6 x 64 x 4 bytes at 10 GB/s
    expected = (4 * N + 6 * 12 * 1024) / 2e11 + 2 * 2 * (6 * 64 * 4) / 1e10
    assert engine_step_seconds(job, tensor_parallel=2, running=6) == pytest.approx(expected)


def test_what_ranks_exchange_grows_with_the_zero_stage():
    def moved(**method: int | bool) -> float:
        return exchange_seconds(tiny_job(**method), 2, num_micro_batches=3) * 1e10 * 2 / (4 * N)

    # in units of the gradient: all-reduce 2; a reduction for each of 3 micro-batches and one
    # gather; for each of them a reduction and two gathers
    assert moved(zero_stage=1) == pytest.approx(2)
    assert moved(zero_stage=2) == pytest.approx(4)
    assert moved(zero_stage=3) == pytest.approx(9)


def test_weights_go_by_copy_on_the_same_device_and_by_link_to_others():
    job = tiny_job(zero_stage=3)
    gather = 4 * N / 2 / 1e10
    local = sync_seconds(job, 2, num_devices=4, is_local=True)
    assert local == pytest.approx(gather + 2 * 4 * N / 1e11)
    assert sync_seconds(job, 2, num_devices=4, is_local=False) == pytest.approx(
        gather + 4 * N / 1e10
    )
    adapters = tiny_job(lora_rank=2)
    assert sync_seconds(adapters, 2, num_devices=4, is_local=False) == pytest.approx(
        4 * 4096 / 1e10
    )


def test_layouts_use_every_device_and_only_sizes_that_divide_the_heads():
    layouts = list(possible_layouts(tiny_job()))
    assert len(set(layouts)) == len(layouts)
    for layout in layouts:
        engines = layout.num_engines * layout.tensor_parallel
        split = layout.sharing is Sharing.SPLIT
        assert (layout.num_ranks + engines if split else engines) == 4
    assert {layout.tensor_parallel for layout in layouts} == {1, 2, 4}
    one_kv_head = replace(tiny_job(), shape=replace(tiny_shape(), num_kv_heads=1))
    assert {layout.tensor_parallel for layout in possible_layouts(one_kv_head)} == {1}


def test_the_best_is_the_fastest_of_what_fits():
    plan = make_plan(tiny_job(), SPLIT_2_2)
    assert plan.best is plan.plans[0]
    assert plan.best.step_seconds == min(each.step_seconds for each in plan.plans)
    assert plan.best_async is not None
    assert plan.best_async.layout.sharing is Sharing.SPLIT
    assert isinstance(plan.configured, LayoutPlan)
    assert len(plan.plans) + plan.num_misfits == len(list(possible_layouts(plan.job)))


def test_one_device_is_shared_in_turn():
    plan = make_plan(tiny_job(num_devices=1))
    assert plan.best_async is None
    assert plan.best.layout.num_ranks == plan.best.layout.num_engines == 1


def test_an_engine_sleeps_only_where_both_do_not_fit_at_once():
    # Engine: weights 0.9 MB and workspace 16,384 x 4 x (2 x 64 + 3 x 256) + 8 x 256 x 1000
    # = 60.8 MB; the learner's 64 tokens take about 1.5 MB of activations and logits.
    roomy = make_plan(tiny_job(num_devices=1, memory_gb=0.08))
    assert roomy.best.layout.sharing is Sharing.RESIDENT
    learner = sum(part.num_bytes for part in roomy.best.learner)
    engine = sum(part.num_bytes for part in roomy.best.engine)
    tight = make_plan(tiny_job(num_devices=1, memory_gb=(learner + engine) / 1e9))
    assert tight.best.layout.sharing is Sharing.SLEEP
    states = sum(part.num_bytes for part in tight.best.learner if part.is_state)
    assert tight.best.beside_bytes == states
    assert tight.best.kv_cache_bytes == pytest.approx(learner - states)


def test_offloading_goes_out_and_in_over_the_link_to_main_memory():
    plan = planned(tiny_job(num_devices=1), Layout(Sharing.OFFLOAD, 1, 1, 1))
    # moments 8 N and gradients 4 N, twice, at 1 GB/s
    assert plan.switch_seconds == pytest.approx(2 * 12 * N / 1e9)


def test_full_training_of_27b_on_four_gpus_is_refused_by_part_with_what_would_fit():
    # Optimiser states: 12 x 27.23e9 = 326.7 GB, / 4 ranks = 81.7 GB
    job = h100_job(
        PUBLISHED["gemma-2-27b"], "4xH100", plain_method(**BF16, zero_stage=3, is_checkpointed=True)
    )
    with pytest.raises(
        PlanError,
        match=r"gemma-2-27b must fit 4xH100.*optimiser states need 81\.7 GB of the .* GB on a "
        r"learner rank \(4 learner ranks.*got 76\.0 GB of room; would fit with LoRA of rank 16",
    ):
        make_plan(job)


def test_remedies_are_the_smallest_changes_that_fit():
    # ZeRO-2 holds 54 GB of weights on every rank; with 24 GB of activations it takes all three.
    job = h100_job(PUBLISHED["gemma-2-27b"], "4xH100", plain_method(**BF16, zero_stage=2))
    assert not fits(job)
    assert find_remedies(job) == [
        "learner.zero_stage=3 and gradient checkpointing and LoRA of rank 16",
        # 3,360 = 1,560 + 1,800: one row at a time
        "gradient checkpointing and learner.micro_batch_tokens=3360 and LoRA of rank 16",
    ]
    two_b = h100_job(PUBLISHED["gemma-2-2b"], "4xH100", plain_method(**BF16, zero_stage=2))
    assert find_remedies(two_b) == ["gradient checkpointing", "learner.micro_batch_tokens=3360"]
    mended = replace(two_b, method=replace(two_b.method, is_checkpointed=True))
    assert fits(mended)


def test_more_machines_are_a_remedy_where_states_are_sharded():
    # 9B: reference 18.5 GB, optimiser 110.9 GB / 4 ranks, activations: too much for 4, not for 8
    method = plain_method(**BF16, zero_stage=3, is_checkpointed=True)
    assert find_remedies(h100_job(PUBLISHED["gemma-2-9b"], "4xH100", method))[-1] == (
        "2 nodes of 4 x H100"
    )


def test_an_engine_too_small_for_one_completion_is_named():
    # 60.8 MB of workspace (above) do not fit 50 MB, the learner does.
    found = plan_layout(tiny_job(memory_gb=0.05), SPLIT_2_2)
    assert isinstance(found, Misfit)
    assert str(found) == (
        "engine workspace need 0.1 GB of the 0.1 GB on an engine (2 learner ranks, 2 engines, "
        "split), got 0.0 GB of room"
    )


def test_a_cpu_keeps_to_the_kv_cache_it_is_given():
    job = tiny_job(num_devices=1)
    device = replace(job.cluster.device, is_cpu=True)
    cpu = replace(job, cluster=replace(job.cluster, device=device), cpu_kv_bytes=18 * 1024.0)
    # a completion at its longest holds 10 + 8 tokens of 1,024 bytes; a group shares its prompt
    plan = make_plan(cpu)
    assert plan.best.kv_cache_bytes == 18 * 1024
    assert plan.best.num_sequences == int(18 / (10 / 3 + 8))
    with pytest.raises(PlanError, match=r"KV of one completion need .*rollout\.kv_cache_gib"):
        make_plan(replace(cpu, cpu_kv_bytes=17 * 1024.0))


@pytest.mark.parametrize("cluster", ["4xH100", "2x8xH100"])
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("pythia-410m", {"zero_stage": 2}),
        ("gemma-2-2b", {"zero_stage": 2, "is_checkpointed": True}),
        ("gemma-2-27b", {"zero_stage": 3, "is_checkpointed": True, "lora_rank": 16}),
    ],
)
def test_plans_of_published_models_follow_from_their_parts(name, method, cluster):
    shape = replace(PUBLISHED[name], max_position=8192)
    plan = make_plan(h100_job(shape, cluster, plain_method(**BF16, **method)))
    room = 76e9  # 80 GB less the reserve
    for each in plan.plans:
        learner = sum(part.num_bytes for part in each.learner)
        engine = sum(part.num_bytes for part in each.engine)
        assert learner <= room
        assert engine + each.beside_bytes + each.kv_cache_bytes <= room * (1 + 1e-9)
        if each.layout.sharing is Sharing.RESIDENT:
            assert each.beside_bytes == learner
    # 54.5 GB of engine weights fit no single GPU beside a learner.
    if name == "gemma-2-27b":
        alone = Layout(Sharing.RESIDENT, plan.job.cluster.num_devices, 1, 1)
        assert isinstance(plan_layout(plan.job, alone), Misfit)


def test_more_gpus_make_a_shorter_step():
    method = plain_method(**BF16, zero_stage=2, is_checkpointed=True)
    few, many = (
        make_plan(h100_job(PUBLISHED["gemma-2-2b"], cluster, method)).best.step_seconds
        for cluster in ("4xH100", "2x8xH100")
    )
    assert many < few < 4 * many
