"""Projection heads."""

import pytest
import torch

from seal.errors import SealError
from seal.models.heads import projection


def test_no_head_has_no_parameters_and_changes_nothing():
    head, z = projection("none", 5), torch.randn(3, 5)
    assert not head.state_dict()
    assert head(z) is z


def test_linear_and_mlp_equal_their_formula():
    z = torch.randn(3, 5)
    linear, mlp = projection("linear", 5), projection("mlp", 5)
    torch.testing.assert_close(linear(z), z @ linear.weight.T + linear.bias)
    first, last = mlp[0], mlp[2]
    hidden = (z @ first.weight.T + first.bias).clamp_min(0)
    torch.testing.assert_close(mlp(z), hidden @ last.weight.T + last.bias)
    assert mlp(z).shape == z.shape


def test_another_kind_is_refused():
    with pytest.raises(SealError, match=r"(?s)unknown projection head 'deep'.*none, linear or mlp"):
        projection("deep", 5)
