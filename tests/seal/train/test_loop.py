"""The loop: deterministic, resumable to the bit, and clear about losses that are not finite."""

import math

import pytest
import torch
from torch import nn

from seal.errors import SealError
from seal.train import loop
from seal.train.loop import Schedule, fit, trained_state

SCHEDULE = Schedule(epochs=4, batch=8, lr=1e-2, weight_decay=0.1, seed=3)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.frozen = nn.Linear(3, 3).requires_grad_(False)
            self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
            self.x = torch.randn(20, 3)

    def losses(self, rows):
        mse = (self.net(self.frozen(self.x[rows])) - 1).pow(2).mean()
        return {"mse": mse, "total": 2 * mse}


class Task:
    """The smallest task: batches as they are, drawing from each batch's seed."""

    n = 20
    shared = False

    def __init__(self, model):
        self.model = model
        self.seen = []

    def stream(self, batches):
        return iter(batches)

    def backward(self, batch):
        torch.manual_seed(batch.seed)
        self.seen.append(batch.rows)
        terms = self.model.losses(batch.rows)
        terms["total"].backward()
        return terms


def run(folder, model=None, key="key", schedule=SCHEDULE):
    model = model or Toy()
    return model, fit(Task(model), schedule, folder, key, "toy")


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_every_row_once_an_epoch_and_cosine_rate(tmp_path):
    task = Task(Toy())
    log, seen = fit(task, SCHEDULE, tmp_path, "key", "toy"), task.seen
    assert len(log) == 8
    assert not task.model.training
    assert {len(rows) for rows in seen} == {10}
    assert all(sorted(torch.cat(seen[i : i + 2]).tolist()) == list(range(20)) for i in range(0, 8, 2))
    orders = [torch.cat(seen[i : i + 2]).tolist() for i in range(0, 8, 2)]
    assert len({tuple(order) for order in orders}) == 4, "each epoch has an order of its own"
    rates = [1e-2 * 0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert [row["lr"] for row in log] == pytest.approx(rates)
    assert all(row["total"] == pytest.approx(2 * row["mse"]) for row in log)


def test_every_batch_draws_from_a_seed_of_its_own_whatever_was_done_before():
    plan, other = loop._plan(20, 2, 0, 8, seed=3), loop._plan(20, 2, 0, 8, seed=4)
    assert len({batch.seed for batch in plan + other}) == 16
    late = loop._plan(20, 2, 5, 8, seed=3)
    assert [batch.seed for batch in late] == [batch.seed for batch in plan[5:]]
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(late, plan[5:], strict=True))
    assert not torch.equal(plan[0].rows, other[0].rows)


def test_one_step_equals_torch_adamw(tmp_path):
    schedule = Schedule(epochs=1, batch=20, lr=1e-2, weight_decay=0.1, seed=3)
    model, plain = Toy(), Toy()
    for toy in (model, plain):
        toy.net[2].p = 0.0
    run(tmp_path, model, schedule=schedule)
    optimiser = torch.optim.AdamW(plain.net.parameters(), lr=1e-2, weight_decay=0.1)
    plain.losses(torch.arange(20))["total"].backward()
    optimiser.step()
    for name, value in plain.net.named_parameters():
        if name != "0.bias":  # BatchNorm cancels it: its gradient is rounding noise, which AdamW scales up
            torch.testing.assert_close(model.net.get_parameter(name), value, rtol=1e-4, atol=1e-5)


def test_same_seed_same_weights_other_seed_others(tmp_path):
    a, b = run(tmp_path / "a")[0], run(tmp_path / "b")[0]
    other = run(tmp_path / "c", schedule=Schedule(4, 8, 1e-2, 0.1, seed=4))[0]
    assert equal(a, b)
    assert not equal(a, other)
    assert torch.equal(a.frozen.weight, Toy().frozen.weight)


@pytest.mark.parametrize("seconds", [0, 1e9])
@pytest.mark.parametrize("killed_at", [1, 3, 6])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, killed_at, seconds, monkeypatch):
    whole, log = run(tmp_path / "whole")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", seconds)
    step, steps = loop._step, iter(range(100))

    def dying(*args):
        if next(steps) == killed_at:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(loop, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoint.pt").is_file() == (seconds == 0)
    monkeypatch.undo()
    task = Task(Toy())
    resumed_log = fit(task, SCHEDULE, tmp_path / "killed", "key", "toy")
    assert equal(whole, task.model)
    assert resumed_log == log
    assert len(task.seen) == (8 - killed_at if seconds == 0 else 8)


def test_a_checkpoint_of_other_settings_is_not_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    run(tmp_path, key="old", schedule=Schedule(4, 8, 1e-2, 0.1, seed=4))
    model, log = run(tmp_path, key="new")
    assert len(log) == 8
    assert equal(model, run(tmp_path / "fresh")[0])


def test_a_truncated_checkpoint_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SealError, match=r"checkpoint\.pt"):
        run(tmp_path)


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    model = Toy()
    model.x[3] = float("nan")
    with pytest.raises(SealError, match=r"toy, epoch 0.*not finite"):
        run(tmp_path, model)


def test_too_few_rows(tmp_path):
    task = Task(Toy())
    task.n = 1
    with pytest.raises(SealError, match="1 training rows"):
        fit(task, SCHEDULE, tmp_path, "key", "toy")
    task.n = 2
    assert len(fit(task, SCHEDULE, tmp_path, "key", "toy")) == SCHEDULE.epochs, "two rows are one batch"


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / ".checkpoint.0123abcd.part.pt"
    left.write_bytes(b"half")
    run(tmp_path)
    assert not left.exists()


def test_a_scalar_is_trained_without_weight_decay(tmp_path):
    model = Toy()
    model.scale = nn.Parameter(torch.tensor(3.0))
    losses = model.losses
    model.losses = lambda rows: {k: v + 0 * model.scale for k, v in losses(rows).items()}
    run(tmp_path, model, schedule=Schedule(epochs=2, batch=8, lr=1e-2, weight_decay=10.0, seed=3))
    assert float(model.scale.detach()) == 3.0  # its gradient is zero: only decay could move it


def test_the_callers_random_state_is_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_trained_state_leaves_frozen_weights_out():
    names = set(trained_state(Toy()))
    assert "net.1.running_mean" in names
    assert not any(name.startswith("frozen") for name in names)
