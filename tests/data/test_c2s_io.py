"""Data sets of the cell2sentence package: read as they are, and written back word for word."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.cells.sentence import write_sentence
from c2s_rl.data.shards import read_cells
from c2s_rl.data.source import SourceConfig, open_source
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.pipeline.convert import ConvertConfig, run
from tests import format_files as files

SENTENCES = {"c1": "CD3D ISG15", "c2": "MX1 CD3D  ISG15\n", "c3": "ISG15"}


def convert(path, output, **options):
    """Convert and write the sentences again, by cell."""
    manifest = run(ConvertConfig(path=str(path), values="ranks", **options), output)
    cells = read_cells(output, options.get("obs", ()))
    sentences = {
        cell: write_sentence(cells.genes_of(i), manifest.vocabulary)
        for i, cell in enumerate(cells.cell_ids)
    }
    return manifest, cells, sentences


def test_sentences_come_back_word_for_word_with_their_labels(tmp_path):
    path = files.write_sentences(SENTENCES, tmp_path, kind=["B", None, "T"], age=[1.0, 2.5, 3.0])
    manifest, cells, sentences = convert(path, tmp_path / "out", obs=("kind", "age"))
    assert sentences == {cell: " ".join(text.split()) for cell, text in SENTENCES.items()}
    assert manifest.symbols == ("CD3D", "ISG15", "MX1")
    assert cells.obs["kind"].tolist() == ["B", "", "T"]
    assert cells.obs["age"].tolist() == ["1.0", "2.5", "3.0"]
    assert manifest.normalisation == "1 - log10(rank) / log10(genes + 1)"
    # Three words: 1 - log10(r) / log10(4) = 1, 1/2, 1 - log10(3) / log10(4)
    np.testing.assert_allclose(cells.values[2:5], [1.0, 0.5, 0.2075187], rtol=1e-6)


def test_a_data_set_that_the_package_made_comes_back_word_for_word(tmp_path):
    from cell2sentence import CSData

    adata = files.make_adata()
    arrow, vocabulary = CSData.adata_to_arrow(adata, label_col_names=["cell_type"])
    data = CSData.csdata_from_arrow(arrow, vocabulary, str(tmp_path), "saved")
    _, cells, sentences = convert(tmp_path / "saved", tmp_path / "out", obs=("cell_type",))
    assert list(sentences.values()) == list(data.get_sentence_strings())
    assert cells.obs["cell_type"].tolist() == list(adata.obs["cell_type"])


def test_repeated_words_count_once_and_are_counted(tmp_path):
    path = files.write_sentences({"c1": "A B A C B A", "c2": "B A", "c3": ""}, tmp_path)
    config = SourceConfig(path=str(path), values="ranks")
    with open_source(config, tmp_path / "scratch") as cells:
        (chunk,) = cells.chunks(10)
        assert chunk.indptr.tolist() == [0, 3, 5, 5]
        assert [cells.var_names[i] for i in chunk.columns] == ["A", "B", "C", "B", "A"]
        assert cells.num_left_out == {
            "repeated words of sentences": 3,
            "sentences with repeated words": 1,
        }


def test_a_saved_vocabulary_gives_order_and_size(tmp_path):
    path = files.write_sentences({"c1": "B A"}, tmp_path)
    (path / "vocabulary.json").write_text(json.dumps({"Z": 0, "B": 1, "A": 1}))
    manifest, cells, sentences = convert(path, tmp_path / "out")
    assert manifest.symbols == ("Z", "B", "A")
    assert sentences == {"c1": "B A"}
    # N = 3: the second word has 1 - log10(2) / log10(4) = 1/2
    np.testing.assert_allclose(cells.values, [1.0, 0.5])


def test_splits_are_read_one_by_one(tmp_path):
    import datasets

    dataset = datasets.load_from_disk(files.write_sentences(SENTENCES, tmp_path))
    datasets.DatasetDict(train=dataset, test=dataset).save_to_disk(tmp_path / "splits")
    message = r"one split, got the splits 'train', 'test' in .*such as .*splits/train"
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "splits", tmp_path / "out")
    assert len(convert(tmp_path / "splits" / "test", tmp_path / "out")[2]) == 3


def test_codes_of_classes_become_their_names(tmp_path):
    import datasets

    dataset = datasets.load_from_disk(
        files.write_sentences(SENTENCES, tmp_path, kind=["B", "T", "B"])
    )
    dataset.class_encode_column("kind").select([2, 1]).save_to_disk(tmp_path / "coded")
    _, cells, _ = convert(tmp_path / "coded", tmp_path / "out", obs=("kind",))
    assert cells.obs["kind"].tolist() == ["B", "T"]
    assert cells.cell_ids == ("c3", "c2")


def test_what_is_no_data_set_is_refused(tmp_path):
    config = {"format": "cell2sentence", "values": "ranks"}
    for path, error, message in (
        (tmp_path / "none", MissingFileError, r"must be a folder, got .*none"),
        (tmp_path, DataError, "a whole folder of save_to_disk, got .*neither a `Dataset`"),
    ):
        with (
            pytest.raises(error, match=message),
            open_source(SourceConfig(path=str(path), **config), tmp_path),
        ):
            pass


@settings(max_examples=15)
@given(st.lists(st.permutations([f"G{i}" for i in range(9)]), min_size=1, max_size=6))
def test_any_sentences_come_back(tmp_path_factory, orders):
    folder = tmp_path_factory.mktemp("sentences")
    wanted = {f"c{i}": " ".join(order[: i + 1]) for i, order in enumerate(orders)}
    path = files.write_sentences(wanted, folder)
    assert convert(path, folder / "out")[2] == wanted
