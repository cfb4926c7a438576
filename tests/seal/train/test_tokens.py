"""One file of tokens: whole or hidden, resumable part by part, exact, clear about what is wrong."""

import os

import numpy as np
import pytest
import torch

from seal.errors import SealError
from seal.files import Made
from seal.train import tokens

SHAPE, TOKENS = (2, 10), (3, 4)


def value(view, row):
    return torch.arange(12).view(TOKENS) + 100.0 * row + 10_000.0 * view


class Maker:
    """Makes known tokens; dies after so many parts."""

    def __init__(self, dies_after=None):
        self.dies_after = dies_after
        self.made = []

    def stream(self, requests):
        for views, rows in requests:
            if len(self.made) == self.dies_after:
                raise KeyboardInterrupt
            self.made.append((int(views[0]), rows.tolist()))
            yield torch.stack([value(v, r) for v, r in zip(views, rows, strict=True)])


def make(folder, maker, dtype="float32", key="key", shape=SHAPE):
    made = Made("tokens", 1, {"key": key})
    wanted = [tokens.Wanted(folder, made, lambda: TOKENS)]
    tokens.write_tokens(wanted, shape, dtype, lambda _: lambda requests: ([x] for x in maker.stream(requests)))
    return tokens.TokenFile(folder, dtype)


@pytest.fixture(autouse=True)
def four_rows_a_part(monkeypatch):
    monkeypatch.setattr(tokens, "CHUNK", dict.fromkeys(tokens.CHUNK, 4))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_come_back_as_they_were_put(tmp_path, dtype):
    file = make(tmp_path / "main", Maker(), dtype)
    views, rows = np.array([1, 0, 1]), np.array([9, 3, 0])
    expected = torch.stack([value(v, r) for v, r in zip(views, rows, strict=True)]).to(tokens.DTYPES[dtype])
    assert torch.equal(file.read(views, rows), expected)
    assert torch.equal(file.read_all()[views, rows], expected)
    assert {p.name for p in (tmp_path / "main").iterdir()} == {"tokens.npy", "tokens.json"}


@pytest.mark.parametrize("dies_after", [0, 1, 4])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, dies_after, monkeypatch):
    monkeypatch.setattr(tokens, "PERSIST_SECONDS", -1)
    whole = make(tmp_path / "whole" / "main", Maker()).path.read_bytes()
    folder = tmp_path / "killed" / "main"
    with pytest.raises(KeyboardInterrupt):
        make(folder, Maker(dies_after))
    assert not folder.exists()
    rest = Maker()
    assert make(folder, rest).path.read_bytes() == whole
    assert len(rest.made) == 6 - dies_after
    again = Maker()
    make(folder, again)
    assert again.made == []


def test_parts_of_another_key_are_not_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "PERSIST_SECONDS", -1)
    folder = tmp_path / "tokens" / "main"
    with pytest.raises(KeyboardInterrupt):
        make(folder, Maker(3), key="old")
    fresh = Maker()
    make(folder, fresh, key="new")
    assert len(fresh.made) == 6
    assert {path.name for path in folder.parent.iterdir()} == {"main", ".main.lock"}


def test_a_whole_file_of_another_key_is_made_anew(tmp_path):
    make(tmp_path / "main", Maker(), key="old")
    fresh = Maker()
    make(tmp_path / "main", fresh, key="new")
    assert len(fresh.made) == 6


@pytest.mark.parametrize("number", [1e6, float("nan")])
def test_a_token_that_its_dtype_cannot_hold_is_an_error(tmp_path, number):
    maker = Maker()
    maker.stream = lambda requests: (torch.full((len(rows), *TOKENS), number) for _, rows in requests)
    with pytest.raises(SealError, match="does not fit float16"):
        make(tmp_path / "main", maker, "float16")
    assert not (tmp_path / "main").exists()


def test_a_truncated_file_is_named(tmp_path):
    file = make(tmp_path / "main", Maker())
    file.read_all()
    file.rows.read([0])
    with file.path.open("r+b") as handle:
        handle.truncate(file.path.stat().st_size - 8)
    with pytest.raises(SealError, match=r"tokens\.npy cannot be read \(it ends early"):
        file.read(np.array([1]), np.array([9]))


def test_a_disk_that_is_too_small_is_named_before_anything_is_made(tmp_path):
    maker = Maker()
    with pytest.raises(SealError, match="GB free for"):
        make(tmp_path / "main", maker, shape=(2, 10**15))
    assert maker.made == []


def test_a_disk_that_fills_up_on_the_way_is_named_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "PERSIST_SECONDS", -1)
    write, calls = os.pwrite, []

    def full(file, data, offset):
        calls.append(offset)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SealError, match=r"tokens\.npy: No space left"):
        make(tmp_path / "full" / "main", Maker())
    rest = Maker()
    make(tmp_path / "full" / "main", rest)
    assert len(rest.made) == 4
