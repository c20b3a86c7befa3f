"""Reading evaluation.json back."""

import pytest

from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.evaluation.result import read_evaluation


def test_an_evaluation_comes_back_as_written(tiered, tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(tiered.model_dump_json(), encoding="utf-8")
    assert read_evaluation(path) == tiered


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 1, "program": "X"}', "schema_version 2, got 1 .*--overwrite"),
        ("[]", "schema_version 2, got None"),
        ("{", "an evaluation must be JSON, got"),
        ('{"schema_version": 2}', "must follow its schema, got 'Field required' at program"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "evaluation.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_evaluation(path)


def test_a_missing_evaluation_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="must be a file that exists, got"):
        read_evaluation(tmp_path / "evaluation.json")
