"""Stages as Ray jobs, submitted as a user submits them, on a cluster that asks for a token."""

from collections.abc import Iterator

import pytest

from actors.jobs import load_run, run_stage
from c2s_rl.runlog import read_metrics
from tests.integration.conftest import Runs
from tests.integration.ray_cluster import Cluster, cluster_with_token

pytestmark = pytest.mark.integration

TRAINING = "{num_steps: 3, warmup_steps: 1, lr: 1.0e-3, batch_size: 4, data: {max_length: 96}}"
SETTINGS = ["evaluate=null", f"pretrain={TRAINING}", f"sft={TRAINING}", "align.num_steps=2"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_with_token(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_a_job_without_the_token_is_refused(cluster: Cluster, runs: Runs) -> None:
    env = {name: text for name, text in cluster.env.items() if name != "RAY_AUTH_TOKEN_PATH"}
    wrong = env | {"RAY_AUTH_TOKEN": "0" * 64}
    refused = cluster.try_to_submit("convert", "--config", str(runs.config("refused")), env=wrong)
    assert refused.returncode != 0
    assert not (runs.folder / "refused").exists()


def test_stages_run_as_jobs(cluster: Cluster, runs: Runs) -> None:
    config = runs.config("jobs")
    options = [word for setting in SETTINGS for word in ("--set", setting)]

    def submit(stage: str) -> None:
        assert f"{stage} -> " in cluster.submit(stage, "--config", str(config), *options)

    submit("convert")
    for stage in ("corpus", "base_model"):  # need no cluster
        run_stage(load_run(config, SETTINGS), stage)
    trained = ("pretrain", "sft", "align")
    for stage in trained:
        submit(stage)
    for stage in trained:
        folder = runs.folder / "jobs" / stage
        assert (folder / "policy" / "model.safetensors").is_file()
        assert read_metrics(folder / "metrics.jsonl")[-1]["step"] >= 1
