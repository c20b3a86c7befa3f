"""The embedding is the package's own, whatever goes with a cell, and in whatever order."""

import numpy as np
import pytest

from c2s_rl.cells.rank_model import RankForm, RankModel
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import validate
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.models import scgpt_embedder
from c2s_rl.models.cell_embedder import CellEmbedderConfig, embed_once, load_cell_embedder
from c2s_rl.models.encoding_cache import EncodingCache
from tests.models.scgpt_folders import (
    SYMBOLS,
    int32,
    package_embeddings,
    package_model,
    write_published,
)

VOCABULARY = Vocabulary((*SYMBOLS, "UNKNOWN"), (*SYMBOLS, "UNKNOWN"))
RANK_MODEL = RankModel(RankForm.LOG_RANK, slope=-0.7, intercept=2.7, r2=0.9)


@pytest.fixture
def load(tmp_path):
    """Build an embedder on a folder with random weights; max_seq_len 12 leaves 11 genes."""
    folder = write_published(tmp_path / "scgpt")

    def load(folder=folder, vocabulary=VOCABULARY, **options):
        config = CellEmbedderConfig(kind="scgpt", folder=folder, **options)
        return load_cell_embedder(config, vocabulary, RANK_MODEL)

    return load


@pytest.fixture(scope="module")
def cells():
    """40 rankings of 0 to 20 genes, a gene that scGPT does not know among them."""
    rng = np.random.default_rng(0)
    lengths = [0, 1, 20, *rng.integers(0, 21, size=37).tolist()]
    return [rng.permutation(31)[:length].astype(np.int32) for length in lengths]


def expected(model, embedder, cells):
    tokens = [embedder.tokenizer.tokens(cell) for cell in cells]
    return package_embeddings(
        model, [t.genes_T.tolist() for t in tokens], [t.bins_T.tolist() for t in tokens]
    )


@pytest.mark.parametrize("is_flash", [True, False])
def test_embeddings_are_those_of_the_package(tmp_path, load, cells, is_flash):
    embedder = load(folder=write_published(tmp_path / "other", is_flash=is_flash))
    embedded = embedder.embed(cells)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, expected(package_model(), embedder, cells), atol=1e-5)
    # and cells differ by far more than that
    assert np.abs(embedded[2] - embedded[3]).max() > 0.01


def test_batch_normalisation_is_part_of_the_embedding(tmp_path, load, cells):
    model = package_model(domain_spec_batchnorm="batchnorm")
    model.bn.running_mean += 0.5
    embedder = load(folder=write_published(tmp_path / "other", model=model))
    np.testing.assert_allclose(embedder.embed(cells), expected(model, embedder, cells), atol=1e-5)
    assert np.abs(embedder.embed(cells) - load().embed(cells)).max() > 0.01


def test_bfloat16_turns_an_embedding_by_little_and_has_a_name_of_its_own(load, cells):
    exact, fast = load(), load(dtype="bfloat16")
    embedded = fast.embed(cells)
    assert embedded.dtype == np.float32
    cosine = (embedded * exact.embed(cells)).sum(axis=1)
    assert 1e-9 < (1.0 - cosine).max() < 1e-3
    assert fast.name == f"{exact.name}, bfloat16"


def test_embeddings_are_of_unit_length_or_as_the_model_gives_them(load, cells):
    unit, own = load().embed(cells), load(normalise=False).embed(cells)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-5)
    lengths = np.linalg.norm(own, axis=1, keepdims=True)
    assert np.ptp(lengths) > 0.1
    np.testing.assert_allclose(own / lengths, unit, atol=1e-6)


def test_a_cell_embeds_the_same_in_any_company_and_order(load, cells, monkeypatch):
    embedder = load()
    together = embedder.embed(cells)
    assert np.array_equal(embedder.embed(cells), together)
    alone = np.concatenate([embedder.embed([cell]) for cell in cells])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    np.testing.assert_allclose(embedder.embed(cells[::-1])[::-1], together, atol=1e-6)
    monkeypatch.setattr(scgpt_embedder, "TOKENS_PER_BATCH", 30)
    np.testing.assert_allclose(embedder.embed(cells), together, atol=1e-6)


def test_no_cells_are_no_embeddings(load):
    assert load().embed([]).shape == (0, 16)


def test_a_cell_without_known_genes_is_the_token_cls_alone(load):
    embedder = load()
    empty, unknown = embedder.embed([int32(), int32(30)])
    np.testing.assert_allclose(empty, unknown, rtol=0, atol=1e-6)
    np.testing.assert_allclose(empty, package_embeddings(package_model(), [[]], [[]])[0], atol=1e-5)


def test_only_genes_of_the_programs_count(tmp_path, load):
    (tmp_path / "sets.gmt").write_text("ODD\t-\tG1\tG3\tG5\nNONE\t-\tGAPDH\nFAR\t-\tUNKNOWN\n")
    embedder = load(programs=(f"{tmp_path / 'sets.gmt'}:ODD",))
    both = embedder.embed([int32(1, 2, 3, 4), int32(1, 6, 3, 8)])
    # not to the last bit: with several threads a row's rounding depends on its place in the batch
    np.testing.assert_allclose(both[0], both[1], rtol=0, atol=1e-6)
    assert embedder.num_seen(int32(1, 2, 3, 4, 30)) == 2
    assert "of 3 genes" in embedder.name
    with pytest.raises(DataError, match="must know a gene of those that are looked at"):
        load(programs=(f"{tmp_path / 'sets.gmt'}:FAR",))


def test_names_tell_apart_what_embeds_differently(tmp_path, load):
    (tmp_path / "sets.gmt").write_text("A\t-\tG1\tG3\nB\t-\tG1\tG5\n")
    embedders = [
        load(),
        load(normalise=False),
        load(bins="subset"),
        *(load(programs=(f"{tmp_path / 'sets.gmt'}:{name}",)) for name in "AB"),
        load(vocabulary=Vocabulary(SYMBOLS[::-1], SYMBOLS[::-1])),
        load(folder=write_published(tmp_path / "wide", embsize=24)),
    ]
    assert len({embedder.name for embedder in embedders}) == len(embedders)
    assert load().name == load().name


def test_real_cells_are_embedded_once_for_all_who_share_a_folder(tmp_path, load, cells):
    first, second = load(), load()
    embedded = embed_once(first, cells, EncodingCache(folder=tmp_path / "cache"))
    second.embed = None  # would raise if it were called
    again = embed_once(second, cells, EncodingCache(folder=tmp_path / "cache"))
    assert np.array_equal(again, embedded)
    others = embed_once(first, cells[1:], EncodingCache(folder=tmp_path / "cache"))
    assert len(others) == len(cells) - 1


def test_the_runs_own_folder_is_taken_where_none_is_named(tmp_path):
    config = CellEmbedderConfig(kind="scgpt")
    with pytest.raises(ConfigError, match=r"must name its folder, or the run must train one"):
        load_cell_embedder(config, VOCABULARY, RANK_MODEL)
    own = write_published(tmp_path / "own")
    embedder = load_cell_embedder(config, VOCABULARY, RANK_MODEL, own_folder=own)
    assert embedder.embed([int32(1)]).shape == (1, 16)


def test_a_folder_may_use_environment_variables(tmp_path, monkeypatch):
    write_published(tmp_path / "scgpt")
    monkeypatch.setenv("MODELS", str(tmp_path))
    config = CellEmbedderConfig(kind="scgpt", folder="${MODELS}/scgpt")
    assert load_cell_embedder(config, VOCABULARY, RANK_MODEL).embed([int32(1)]).shape == (1, 16)
    with pytest.raises(MissingFileError, match=r"got no args.json and no vocab.json and no best"):
        load_cell_embedder(
            CellEmbedderConfig(kind="scgpt", folder=tmp_path), VOCABULARY, RANK_MODEL
        )


def test_options_of_scgpt_need_scgpt():
    with pytest.raises(ConfigError, match="bins, folder must be given with kind scgpt only"):
        validate(CellEmbedderConfig, {"folder": "x", "bins": "subset"}, "run.yaml")
