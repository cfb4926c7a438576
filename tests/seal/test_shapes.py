"""Shapes as types: checked here, and nothing but the tensor type where jaxtyping is not installed."""

import subprocess
import sys

import numpy as np
import torch

from seal.shapes import Float, RowReader


def test_shapes_are_those_of_tensors():
    assert isinstance(torch.zeros(2, 3), Float[torch.Tensor, "batch genes"])
    assert not isinstance(torch.zeros(2), Float[torch.Tensor, "batch genes"])
    assert not isinstance(torch.zeros(2, 3, dtype=torch.int64), Float[torch.Tensor, "batch genes"])
    assert isinstance(np.zeros((2, 3)), RowReader)


def test_without_jaxtyping_they_stand_for_the_tensor():
    code = """
import sys
sys.modules["jaxtyping"] = None
from torch import Tensor
from seal import losses
from seal.shapes import Float
assert Float[Tensor, "batch genes"] is Tensor
assert losses.pcc.__annotations__ == {"x_hat": Tensor, "x": Tensor, "return": Tensor}
"""
    subprocess.run([sys.executable, "-c", code], check=True)
