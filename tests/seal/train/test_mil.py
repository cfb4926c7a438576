"""Many trainings at once against the plain loop, one training after the other; bags from files; what is refused."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seal.data.slide_tasks import SlideTask
from seal.errors import SealError
from seal.models import mil
from seal.slides import trident
from seal.train import mil_stack
from seal.train.bags import Bags
from seal.train.loop import make_seed
from seal.train.mil import train_jobs
from seal.train.mil_jobs import MilJob, MilSettings, make_jobs
from seal.train.mil_stack import Stack, bag_number, order_bags

WIDTH = 8
NAMES = tuple(f"P{i}" for i in range(14))
SETTINGS = MilSettings(hidden=6, attention=5, epochs=3, lr=1e-2, bag=12)


def write(folder, slide, features, encoder="plain"):
    with h5py.File(folder / f"{slide}.h5", "w") as file:
        file["features"] = features
        file["features"].attrs["encoder"] = encoder
        file["coords"] = np.zeros((len(features), 2), dtype=int)


@pytest.fixture
def folder(tmp_path):
    """One slide a case, 5 to 18 patches, every third patch of odd cases shifted; P0 has two slides."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        x = rng.standard_normal((5 + i, WIDTH)).astype(np.float32)
        x[::3, 0] += 4 * (i % 2)
        write(tmp_path, name, x)
    write(tmp_path, "P0b", rng.standard_normal((3, WIDTH)).astype(np.float32))
    return tmp_path


@pytest.fixture
def bags(folder):
    return Bags(folder, {name: ("P0", "P0b") if name == "P0" else (name,) for name in NAMES})


def job(kind, first=0, seed=0, **changes):
    """A training on ten of the bags from `first` on, tested on the other four."""
    order = NAMES[first:] + NAMES[:first]
    train, rng = order[:10], np.random.default_rng(first)
    labels = {
        "classes": [int(n[1:]) % 2 for n in train],
        "grades": [i % 3 for i in range(10)],
        "numbers": rng.normal(50, 20, 10).tolist(),
        "survival": [i % 4 for i in range(10)],
        "cox": [0] * 10,
    }[kind]
    own = {"event": tuple((rng.random(10) < 0.7).tolist())} if kind in ("survival", "cox") else {}
    own |= {"days": tuple(rng.uniform(1, 900, 10).tolist())} if kind == "cox" else {}
    own |= {"classes": {"classes": 2, "grades": 3}.get(kind, 1), "name": kind}
    return MilJob(kind, train, tuple(map(float, labels)), order[10:], seed, **(own | changes))


JOBS = [job("classes"), job("numbers", 3, 1), job("survival", 5, 2), job("grades", 1, 3), job("classes", 4, 4)]


# ---- the plain loop ---------------------------------------------------------------------------------------------


def plain_forward(p, x, drop):
    """ABMIL of one run: x [n, d]; `drop` is called in the order of the layers."""
    h = drop(F.gelu(x @ p["before.weight"] + p["before.bias"]), 0.1)
    a = drop(torch.tanh(h @ p["attend.weight"] + p["attend.bias"]), 0.25)
    if "gate.weight" in p:
        a = a * drop(torch.sigmoid(h @ p["gate.weight"] + p["gate.bias"]), 0.25)
    a = torch.softmax((a @ p["score.weight"]).squeeze(1), dim=0)
    z = drop(F.gelu((a @ h)[None] @ p["after.weight"] + p["after.bias"]), 0.1)
    return (z @ p["head.weight"] + p["head.bias"])[0]


def plain_loss(one, outputs, at):
    """Of the training bags at `at`, [B, K]: their mean."""
    y = torch.tensor(one.labels)[at]
    if one.kind == "numbers":
        y = (y - np.mean(one.labels)) / np.std(one.labels)
        return ((outputs[:, 0] - y.float()) ** 2).mean()
    if one.kind == "survival":
        return mil.survival_loss(outputs, y.long(), torch.tensor(one.event)[at]).mean()
    if one.kind == "cox":
        days, event = torch.tensor(one.days)[at], torch.tensor(one.event)[at]
        return mil.cox_loss(outputs.T, days[None], event[None], torch.ones(1, len(at), dtype=torch.bool))[0]
    labels = list(one.labels)
    weight = torch.tensor([len(labels) / (len(set(labels)) * labels.count(v)) for v in y.tolist()])
    return (weight * F.cross_entropy(outputs, y.long(), reduction="none")).mean()


def train_plainly(one, bags, settings):
    """One training: autograd, torch's AdamW and its cosine, a step a block of the run's own order."""
    model = mil.make_mil(settings.model, 1, WIDTH, one.outputs, settings.hidden, settings.attention)
    model.start(0, make_seed(one.seed))
    p = {n: v[0].detach().clone().requires_grad_() for n, v in model.named_parameters()}
    optimiser = torch.optim.AdamW(list(p.values()), lr=settings.lr, weight_decay=settings.weight_decay)
    plan = [block for epoch in range(settings.epochs) for block in order_bags(one.train, epoch, settings)]
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(plan), eta_min=1e-8)
    for step, block in enumerate(plan):
        outputs = []
        for name in block:
            x, draws = bags.read(name), mil.Draws(torch.tensor([one.seed]), torch.tensor([step]), bag_number(name))
            if len(x) > settings.bag:
                x = x[draws.sample(len(x), settings.bag)[0]]
            outputs.append(plain_forward(p, x, lambda v, q, draws=draws: draws.drop(v[None], q)[0]))
        optimiser.zero_grad()
        plain_loss(one, torch.stack(outputs), [one.train.index(name) for name in block]).backward()
        optimiser.step()
        cosine.step()
    return p


def assert_equal(stack, run, plain):
    for name, value in stack._cut(stack.weights).items():
        own = value[run]
        if name == "head.bias" and stack.jobs[run].kind == "cox":
            continue  # no comparison of cases depends on it: AdamW follows its rounding errors
        if name.startswith("head"):  # outputs that another run needs
            assert not own[..., stack.jobs[run].outputs :].any()
            own = own[..., : stack.jobs[run].outputs]
        torch.testing.assert_close(own, plain[name].detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", ["abmil", "abmil_gated"])
def test_together_they_end_where_each_ends_alone(bags, model):
    settings = dataclasses.replace(SETTINGS, model=model)
    bags.look(NAMES)
    stack = Stack(JOBS, WIDTH, settings)
    start = stack.weights.clone()
    assert list(stack.fit(bags)) == [0, 1, 2]
    for run, one in enumerate(JOBS):
        assert_equal(stack, run, train_plainly(one, bags, settings))
    assert (stack.weights - start).abs().max() > 0.05


def test_steps_of_several_bags_and_cox(bags):
    settings = dataclasses.replace(SETTINGS, blocks=3)
    jobs = [*JOBS, job("cox", 2, 5), job("cox", 6, 6)]
    bags.look(NAMES)
    stack = Stack(jobs, WIDTH, settings)
    list(stack.fit(bags))
    assert max(stack.total) <= 9
    for run, one in enumerate(jobs):
        assert_equal(stack, run, train_plainly(one, bags, settings))


def test_how_many_are_computed_at_once_changes_nothing(bags, monkeypatch):
    settings = SETTINGS
    found = []
    for work, memory in ((2**23, 4.0), (1, 4.0), (2**23, 1e-5)):  # all, one, and runs and bags that exceed the memory
        monkeypatch.setitem(mil_stack.WORK, "cpu", work)
        bags = Bags(bags.folder, bags.slides, memory)
        found.append(train_jobs(bags, JOBS, settings, attention=("P3",)))
        assert (len(bags._held) == len(NAMES)) == (memory == 4.0)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a.predictions, b.predictions, atol=1e-5, rtol=1e-5)


def test_an_epochs_order_is_random_and_no_other_run_changes_it():
    orders = [[n for block in order_bags(NAMES, epoch, SETTINGS) for n in block] for epoch in range(200)]
    assert all(sorted(order) == sorted(NAMES) for order in orders)
    firsts = [sum(order[0] == name for order in orders) for name in NAMES]
    assert max(firsts) < 35  # 14 on average
    some = NAMES[2:9]
    for epoch, order in enumerate(orders[:20]):
        own = [n for block in order_bags(some, epoch, SETTINGS) for n in block]
        assert own == [name for name in order if name in some]
    blocks = dataclasses.replace(SETTINGS, blocks=4)
    whole = order_bags(NAMES, 0, blocks)
    assert order_bags(some, 0, blocks) == [own for block in whole if (own := [n for n in block if n in some])]
    other = dataclasses.replace(SETTINGS, seed=1)
    assert order_bags(NAMES, 0, other) != order_bags(NAMES, 0, SETTINGS)


# ---- predictions ------------------------------------------------------------------------------------------------


def test_whole_bags_are_predicted_with_the_last_weights(bags):
    bags.look(NAMES)
    settings = dataclasses.replace(SETTINGS, bag=2)
    found = train_jobs(bags, JOBS, settings, attention=NAMES)
    for one, trained in zip(JOBS, found, strict=True):
        p = train_plainly(one, bags, settings)
        outputs = torch.stack([plain_forward(p, bags.read(name), lambda v, _: v) for name in one.test]).detach()
        if one.kind in ("classes", "grades"):
            wanted = outputs.softmax(dim=1)
        elif one.kind == "numbers":
            wanted = outputs[:, 0] * np.std(one.labels) + np.mean(one.labels)
        else:
            wanted = -(1 - outputs.sigmoid()).cumprod(dim=1).sum(dim=1)
            np.testing.assert_allclose(-trained.curves.sum(axis=1), trained.predictions, atol=1e-6)
        np.testing.assert_allclose(trained.predictions, wanted, atol=1e-4, rtol=1e-4)
        assert {n: len(a) for n, a in trained.attention.items()} == {n: bags.patches[n] for n in one.test}
        np.testing.assert_allclose([a.sum() for a in trained.attention.values()], 1, atol=1e-5)


@pytest.mark.parametrize("model", mil.FORMS)
def test_a_signal_is_learnt_and_found(bags, model):
    """Odd cases have shifted patches, every third: labels follow, and attention prefers those."""
    settings = MilSettings(model=model, hidden=16, attention=16, epochs=40, lr=3e-3)
    (found,) = train_jobs(bags, [job("classes", seed=3)], settings, attention=NAMES)
    right = found.predictions.argmax(axis=1) == [int(n[1:]) % 2 for n in NAMES[10:]]
    assert right.all()
    if model != "mean":
        seen = found.attention["P11"]
        assert seen[::3].mean() > 1.5 * np.delete(seen, np.s_[::3]).mean()


def test_classes_count_alike_if_asked_to(bags):
    labels = (0.0,) * 9 + (1.0,)
    one = dataclasses.replace(job("classes"), labels=labels)
    weighted, plain = (
        train_jobs(bags, [one], dataclasses.replace(SETTINGS, balanced=balanced))[0].predictions[:, 1].mean()
        for balanced in (True, False)
    )
    assert weighted > plain + 0.05


# ---- what is kept -----------------------------------------------------------------------------------------------


def test_finished_jobs_are_kept_and_others_trained(bags, tmp_path, monkeypatch):
    kept, made = tmp_path / "kept", []
    fit = Stack.fit
    monkeypatch.setattr(Stack, "fit", lambda self, *a: (made.extend(self.jobs), fit(self, *a))[1])
    first = train_jobs(bags, JOBS[:2], SETTINGS, kept, attention=("P10",))
    again = train_jobs(bags, JOBS, SETTINGS, kept, attention=("P10",))
    assert made == JOBS
    for a, b in zip(first, again, strict=False):
        np.testing.assert_array_equal(a.predictions, b.predictions)
        assert a.attention.keys() == b.attention.keys()
    renamed = [dataclasses.replace(one, name="another word") for one in JOBS]
    train_jobs(bags, renamed, SETTINGS, kept, attention=("P10",))
    assert made == JOBS
    write(bags.folder, "P4", np.ones((4, WIDTH), dtype=np.float32))  # every job reads it
    train_jobs(Bags(bags.folder, bags.slides), JOBS[:1], SETTINGS, kept)
    assert made == [*JOBS, JOBS[0]]


def test_a_killed_training_goes_on(bags, tmp_path, monkeypatch):
    monkeypatch.setattr(mil_stack, "CHECKPOINT_SECONDS", 0)
    whole = train_jobs(bags, JOBS, SETTINGS)
    step, taken = Stack.step, []

    def dies(self, *arguments):
        taken.append(self.steps[0])
        if len(taken) == 30:  # in the third epoch of 14 steps
            raise KeyboardInterrupt
        step(self, *arguments)

    monkeypatch.setattr(Stack, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_jobs(bags, JOBS, SETTINGS, tmp_path / "kept")
    found = train_jobs(bags, JOBS, SETTINGS, tmp_path / "kept")
    assert taken[30] == 20  # two epochs of ten bags are done
    assert len(taken) == 30 + 14
    for a, b in zip(whole, found, strict=True):
        np.testing.assert_array_equal(a.predictions, b.predictions)
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} == {".npz"}


# ---- tasks and bags ---------------------------------------------------------------------------------------------


def test_jobs_of_a_task():
    """Rows are slides; a bag is a case; several folds and seeds draw apart."""
    folds = {"fold_0": (np.array([0, 1, 2, 4]), np.array([3])), "fold_1": (np.array([0, 1, 2, 3]), np.array([4]))}
    cases, event, days = ("a", "a", "b", "c", "d"), np.array([1, 1, 0, 1, 0]), np.array([3.0, 3, 5, 7, 9])
    shared = {"group": "response", "metric": "cindex", "folds": folds, "event": event, "days": days}
    labels, slides = np.array([4, 4, 1, 6, 3]), ("1", "2", "3", "4", "5")
    task = SlideTask("OS", kind="survival", classes=("q",) * 8, cases=cases, slides=slides, labels=labels, **shared)
    jobs = make_jobs(task, (0, 1))
    assert [set(one.train) for one in jobs] == [{"a", "b", "d"}] * 2 + [{"a", "b", "c"}] * 2
    assert [one.test for one in jobs] == [("c",)] * 2 + [("d",)] * 2
    assert dict(zip(jobs[0].train, jobs[0].labels, strict=True)) == {"a": 0, "b": 1, "d": 3}
    assert dict(zip(jobs[0].train, jobs[0].event, strict=True)) == {"a": True, "b": False, "d": False}
    assert len({one.seed for one in jobs}) == 4
    cox = make_jobs(task, (0,), cox=True)[0]
    assert (cox.kind, cox.outputs, dict(zip(cox.train, cox.days, strict=True))) == ("cox", 1, {"a": 3, "b": 5, "d": 9})


def test_a_cases_slides_are_one_bag_in_their_order(bags):
    parts = [trident.read_table(bags.folder / f"{slide}.h5", "features") for slide in ("P0", "P0b")]
    np.testing.assert_array_equal(bags.read("P0"), np.concatenate(parts))
    half = Bags(bags.folder, bags.slides, precision="bfloat16").read("P0")
    torch.testing.assert_close(half.float(), bags.read("P0"), atol=0.05, rtol=0.01)


def test_bags_are_held_within_their_memory(bags):
    size = {name: bags.read(name).nbytes for name in NAMES}
    small = Bags(bags.folder, bags.slides, memory_gb=2 * sum(sorted(size.values())[:6]) / 1e9)
    for _ in range(2):
        for name, bag in zip(NAMES, small.stream(NAMES), strict=True):
            assert torch.equal(bag, bags.read(name))
        assert 3 <= len(small._held) <= 6
        assert sum(bag.nbytes for bag in small._held.values()) <= small.memory / 2


BROKEN = {
    "no features": (lambda f: (f / "P3.h5").unlink(), "P3.h5 is missing"),
    "no slides": (None, "no slides"),
    "another encoder": (lambda f: write(f, "P3", np.ones((4, WIDTH), dtype="f"), "uni"), "are of uni"),
    "another width": (lambda f: write(f, "P3", np.ones((4, 9), dtype="f")), "9 wide"),
    "one vector": (lambda f: write(f, "P3", np.ones(WIDTH, dtype="f")), "not floating"),
    "no patches": (lambda f: write(f, "P3", np.ones((0, WIDTH), dtype="f")), "no patches"),
    "not finite": (lambda f: write(f, "P3", np.full((4, WIDTH), np.nan, dtype="f")), "P3.h5 are not finite"),
    "truncated": (lambda f: (f / "P3.h5").write_bytes((f / "P3.h5").read_bytes()[:900]), "P3.h5"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_bad_features_are_one_error(bags, what):
    change, words = BROKEN[what]
    if change:
        change(bags.folder)
    else:
        bags.slides["P3"] = ()
    with pytest.raises(SealError, match=words):
        train_jobs(bags, JOBS[:1], SETTINGS)


def test_bad_jobs_are_refused():
    survival = job("survival")
    wrong = {
        "no training bag": (job("numbers"), {"train": (), "labels": ()}),
        "both sides": (job("numbers"), {"test": ("P0",)}),
        "missing": (job("numbers"), {"labels": (1.0,)}),
        "not finite": (job("numbers"), {"labels": (float("nan"),) * 10}),
        "none of its classes": (job("classes"), {"labels": (2.0,) * 10}),
        "no case had the event": (survival, {"event": (False,) * 10}),
        "events": (survival, {"event": ()}),
        "days": (job("cox"), {"days": ()}),
        "unknown kind": (job("numbers"), {"kind": "number"}),
    }
    for words, (one, changes) in wrong.items():
        with pytest.raises(SealError, match=words):
            dataclasses.replace(one, **changes)


def test_cox_asks_for_steps_of_many_cases(bags):
    with pytest.raises(SealError, match="blocks"):
        train_jobs(bags, [job("cox")], SETTINGS)


def test_a_loss_that_is_not_finite_names_its_training(bags):
    with pytest.raises(SealError, match=r"training (numbers|classes): the loss is not finite"):
        train_jobs(bags, [JOBS[0], job("numbers", 3)], dataclasses.replace(SETTINGS, lr=1e30, epochs=9))
