"""HEST-1k's tree: where it lies, and how to get it."""

import pytest

from seal import paths, profiles
from seal.data.sources import hest
from seal.errors import SealError


def test_prepare_says_how_to_get_hest(monkeypatch, tmp_path):
    monkeypatch.setenv("SEAL_HEST", str(tmp_path / "hest"))
    with pytest.raises(SealError, match="holds no HEST-1k samples") as error:
        hest.prepare(profiles.get("maple"))
    assert "huggingface.co/datasets/MahmoodLab/hest" in error.value.do
    assert "python -m seal fetch" in error.value.do
    (tmp_path / "hest" / "st").mkdir(parents=True)
    assert hest.prepare(profiles.get("maple")) == tmp_path / "hest"


def test_hest_lies_with_the_other_samples_by_default():
    assert hest.home() == paths.samples("hest")
