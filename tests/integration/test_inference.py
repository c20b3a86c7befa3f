"""A policy is used on real workers: embedded by several, asked by engines with and without trie."""

from contextlib import ExitStack, contextmanager

import anndata as ad
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.embed_job import embed_workers
from actors.launch import rollout_pool
from actors.rollout import RolloutConfig
from actors.session import RayConfig, ray_session
from c2s_rl.errors import DataError
from c2s_rl.pipeline import annotate, embed, generate
from c2s_rl.pipeline.annotate import AnnotateConfig
from c2s_rl.pipeline.ask import AskFolders
from c2s_rl.pipeline.embed import EmbedConfig, EmbedFolders, EmbedWorkersConfig
from c2s_rl.pipeline.embed_shards import EmbedJob, embed_here
from c2s_rl.pipeline.generate import GenerateConfig
from tests.pipeline.embed_cases import prepare

pytestmark = pytest.mark.integration

ENGINE = RolloutConfig(kv_cache_gib=1, max_num_seqs=12)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("inference"))


def test_a_policy_embeds_annotates_and_generates_on_real_workers(prepared, tmp_path, monkeypatch):
    with ray_session(RayConfig(), num_cpus=2):
        assert_embedding(prepared, tmp_path, monkeypatch)
        assert_annotation(prepared, tmp_path)
        assert_generation(prepared, tmp_path)


def assert_embedding(prepared, tmp_path, monkeypatch):
    """Two workers, or this process alone: the same files; an error of a worker is our own."""
    monkeypatch.setattr(EmbedJob.__init__, "__defaults__", (16,))
    config = EmbedConfig(num_genes=12)
    with embed_workers(EmbedWorkersConfig(num_workers=2, num_cpus=0.5, num_threads=1)) as execute:
        for name, run_shards in (("two", execute), ("here", embed_here)):
            folders = EmbedFolders(prepared.policy, prepared.cells, tmp_path / name)
            embed.run(config, folders, run_shards)
        files = sorted(path.name for path in (tmp_path / "here").iterdir())
        assert len([name for name in files if name.startswith("part-")]) == 4
        for name in files:
            assert (tmp_path / "two" / name).read_bytes() == (
                tmp_path / "here" / name
            ).read_bytes(), name
        long = EmbedConfig(num_genes=30, prompt="{cell_sentence} " * 20)
        folders = EmbedFolders(prepared.policy, prepared.cells, tmp_path / "long")
        with pytest.raises(DataError, match=r"512 tokens .* got \d+ in 'c\d+'"):
            embed.run(long, folders, execute)


def assert_annotation(prepared, tmp_path):
    """Greedy answers are the model's own; seeded ones do not depend on the chunks."""
    folders = {
        name: AskFolders(prepared.policy, prepared.cells, tmp_path / name)
        for name in ("greedy", "small", "large", "too_long")
    }
    config = AnnotateConfig(num_genes=10, max_tokens=6)
    annotate.run(config, folders["greedy"], engines(prepared), prompt_seed=0, chunk_prompts=20)
    answers = pq.read_table(tmp_path / "greedy" / "part-00000.parquet")["answers"].to_pylist()
    for cell in (0, 7, 13):
        assert answers[cell] == [greedy_answer(prepared, f"c{cell}", config)]
    sampled = AnnotateConfig(num_genes=10, max_tokens=6, num_samples=3, temperature=1.0)
    with ExitStack() as stack:
        start = kept(engines(prepared), stack)
        for name, chunk in (("small", 8), ("large", 64)):
            annotate.run(sampled, folders[name], start, prompt_seed=0, chunk_prompts=chunk)
        long = sampled.model_copy(update={"templates": long_template(tmp_path)})
        with pytest.raises(DataError, match="for prompt 'cell_type_annotation/c0/0'"):
            annotate.run(long, folders["too_long"], start, prompt_seed=0)
    small, large = (
        ad.read_h5ad(tmp_path / name / "annotations.h5ad").obs for name in ("small", "large")
    )
    assert small["answers"].tolist() == large["answers"].tolist()
    assert small["answers"].nunique() > 40


def engines(prepared):
    """What starts engines on the policy, as the job does."""

    @contextmanager
    def start(vocabulary, sampling):
        with rollout_pool(prepared.policy, vocabulary, sampling, ENGINE) as pool:
            yield pool

    return start


def kept(start, stack):
    """The same engines for all calls, which ask with the same sampling."""
    pools = []

    @contextmanager
    def start_once(vocabulary, sampling):
        if not pools:
            pools.append(stack.enter_context(start(vocabulary, sampling)))
        yield pools[0]

    return start_once


def long_template(tmp_path):
    path = tmp_path / "long.yaml"
    sentence = "{cell_sentence} " * 60
    path.write_text(f"task: cell_type_annotation\nprompts:\n  - '{sentence}is'\n")
    return path


def greedy_answer(prepared, cell, config):
    """The likeliest tokens by the plain model, up to the end token."""
    folder = prepared.policy
    asked = annotate._Asked(config, prepared.cells, 0, None)
    (request,) = asked.requests(int(cell[1:]), int(cell[1:]) + 1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = tokenizer(request.record.prompt, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(
            prompt["input_ids"],
            attention_mask=prompt["attention_mask"],
            max_new_tokens=config.max_tokens,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )[0]
    return tokenizer.decode(ids[prompt["input_ids"].shape[1] :], skip_special_tokens=True)


def assert_generation(prepared, tmp_path):
    """Cells of every kind of condition, all of distinct known genes."""
    config = GenerateConfig.model_validate(
        {
            "num_genes": 9,
            "max_tokens": 40,
            "conditions": [
                {"num_cells": 4},
                {"cell_type": "T cell", "num_cells": 5},
                {"cell_type": "B cell", "perturbation": "heat", "num_cells": 6},
            ],
            "controls": {"condition_column": "donor", "control": "d1"},
        }
    )
    folders = AskFolders(prepared.policy, prepared.cells, tmp_path / "generate")
    counts = generate.run(config, folders, engines(prepared), chunk_prompts=4)
    assert {name: one.num_cells for name, one in counts.conditions.items()} == {
        "any cell": 4,
        "T cell": 5,
        "B cell | heat": 6,
    }
    adata = ad.read_h5ad(tmp_path / "generate" / "generated.h5ad")
    assert adata.obs["num_genes"].between(1, 9).all()
    assert (adata.obs["num_duplicates"] + adata.obs["num_unknown"]).sum() == 0
    assert adata.X.nnz == adata.obs["num_genes"].sum() - adata.obs["num_below_zero"].sum()
