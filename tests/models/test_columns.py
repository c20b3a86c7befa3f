"""The support of a token's distribution, packed in bits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.errors import DataError
from c2s_rl.models.columns import RestrictedColumns


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(
        ValueError, match=r"uint8 of shape \[N, 2\], got torch.uint8 of shape \[3, 1\]"
    ):
        RestrictedColumns(torch.arange(9), torch.zeros(3, 1, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"strictly increasing, got \[3, 3\]"):
        RestrictedColumns(torch.tensor([3, 3]), torch.zeros(3, 1, dtype=torch.uint8))
    columns = RestrictedColumns(torch.arange(9), torch.zeros(4, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="needs a row of bits, got 3 tokens and 4 rows"):
        columns.positions(torch.tensor([0, 1, 2]))


@settings(max_examples=30)
@given(data=st.data(), num_columns=st.integers(1, 40), num_tokens=st.integers(1, 6))
def test_bits_are_read_as_numpy_packs_them(data, num_columns, num_tokens):
    row = st.lists(st.booleans(), min_size=num_columns, max_size=num_columns)
    is_allowed = np.array(data.draw(st.lists(row, min_size=num_tokens, max_size=num_tokens)))
    bits = torch.from_numpy(np.packbits(is_allowed, axis=1, bitorder="little"))
    # every other token is a column, so that columns and their indices differ
    columns = RestrictedColumns(torch.arange(num_columns) * 2 + 1, bits)
    assert columns.forbidden(slice(0, num_tokens)).tolist() == (~is_allowed).tolist()
    for row in range(num_tokens):
        one = RestrictedColumns(columns.columns_U, bits[row : row + 1])
        for place in range(num_columns):
            target = torch.tensor([2 * place + 1])
            if is_allowed[row, place]:
                assert one.positions(target).tolist() == [place]
            else:
                with pytest.raises(DataError, match="allowed where it was sampled"):
                    one.positions(target)
