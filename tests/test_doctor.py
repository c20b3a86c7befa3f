"""The doctor compares what a run needs with what a machine has."""

from pathlib import Path

import pytest

from actors.run_config import RunConfig
from actors.run_size import estimate_size, gpt_neox_parameters
from c2s_rl.doctor import Check, examine, named_paths, run_checks, torch_cuda_version
from c2s_rl.machine import Gpu, Machine
from c2s_rl.models.shape import GptNeoxShape

SMALL = Machine("3.11.7", "x86_64", 2, (), 8.0, 4.0, 100.0, ())
ALIGN = {
    "align": {"task": "cell_generation", "num_steps": 10},
    "rewards": [{"name": "validity"}],
}


def run_of(**sections: object) -> RunConfig:
    return RunConfig.model_validate({"name": "x", **sections})


def missing(checks: list[Check]) -> list[str]:
    return [check.subject for check in checks if not check.is_ok]


def test_paths_of_a_config_are_found_with_their_keys(tmp_path: Path) -> None:
    run = run_of(base_model={"kind": "folder", "path": tmp_path / "pythia"})
    assert list(named_paths(run)) == [("base_model.path", tmp_path / "pythia")]
    assert missing(list(run_checks(run, SMALL))) == ["base_model.path"]


def test_unset_variable_in_the_data_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("C2S_RL_ABSENT", raising=False)
    run = run_of(convert={"path": "${C2S_RL_ABSENT}/cells.h5ad", "obs": ["donor"]})
    [check] = [check for check in run_checks(run, SMALL) if not check.is_ok]
    assert check.subject == "convert.path"
    assert "got no C2S_RL_ABSENT" in check.found


@pytest.mark.parametrize(("num_gpus", "expected"), [(3, ["GPUs reserved"]), (4, [])])
def test_gpus_of_engine_and_learner_add_up(num_gpus: int, expected: list[str]) -> None:
    run = run_of(
        **ALIGN,
        learner={"num_workers": 3, "num_gpus": 1},
        rollout={"num_workers": 1, "num_gpus": 1},
        placement={"mode": "disaggregated"},
    )
    machine = Machine("3.11.7", "x86_64", 8, (), 64.0, 9.0, 99.0, (Gpu("H100", 80.0),) * num_gpus)
    assert missing(list(run_checks(run, machine))) == expected


def test_a_gpu_that_engine_and_learner_share_counts_once() -> None:
    run = run_of(**ALIGN, learner={"num_gpus": 0.5}, rollout={"num_gpus": 0.4})
    machine = Machine("3.11.7", "x86_64", 8, (), 64.0, 9.0, 99.0, (Gpu("H100", 80.0),))
    assert missing(list(run_checks(run, machine))) == []
    assert missing(list(run_checks(run, SMALL))) == ["GPUs reserved"]


def test_cluster_elsewhere_is_not_judged_from_here() -> None:
    run = run_of(**ALIGN, learner={"num_gpus": 1}, ray={"address": "ray://head:10001"})
    checks = list(run_checks(run, SMALL))
    assert [check.subject for check in checks] == ["cluster"]
    assert missing(checks) == []


def test_parameters_of_pythia_410m() -> None:
    # Pythia-410M: hidden 1024, 24 layers, 50,304 tokens. Its model card: 405,334,016 parameters,
    # 302,311,424 of them outside the two embeddings (24 (12 h^2 + 13 h) + 2 h).
    shape = GptNeoxShape(hidden_size=1024, num_layers=24, num_heads=16, vocabulary_size=50304)
    assert gpt_neox_parameters(shape) == 405_334_016
    assert gpt_neox_parameters(shape) - 2 * 50304 * 1024 == 302_311_424


def test_least_memory_of_a_run_adds_up() -> None:
    shape = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "vocabulary_size": 50304}
    run = run_of(**ALIGN, base_model={"gpt_neox": shape}, rollout={"kv_cache_gib": 3})
    size = estimate_size(run)
    assert size is not None
    # 405,334,016 parameters = 0.37750 x 2^30. Learner 20 and engine 4 bytes each: 9.0599 GiB;
    # 3 GiB of KV cache; driver, engine, learner and reward worker: 4 x 0.6 GiB.
    assert size.memory_gib == pytest.approx(9.0599 + 3 + 2.4, abs=1e-3)
    assert size.shared_memory_gib == pytest.approx(4 * 0.37750, abs=1e-3)
    # Three policy folders of 4 bytes, 2 + 1 checkpoints of 12 bytes a parameter.
    assert size.disk_gib == pytest.approx((3 * 4 + 3 * 12) * 0.37750, abs=1e-3)
    assert missing(list(run_checks(run, SMALL))) == ["memory needed"]


def test_weights_that_are_not_there_have_no_size(tmp_path: Path) -> None:
    run = run_of(base_model={"kind": "folder", "path": tmp_path})
    assert estimate_size(run) is None


def test_bad_config_is_a_line_of_the_diagnosis(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("nam: x\n")
    last = examine(tmp_path / "run.yaml")[-1]
    assert not last.is_ok
    assert "got 'nam'" in last.found
    assert "did you mean 'name'?" in last.found


def test_torch_build_is_read_without_importing_it() -> None:
    import torch

    assert torch_cuda_version() == torch.version.cuda
