"""Slide-level ABMIL: all tasks x folds as one batched training, against one training after the other.

jobs    the simulated cohort's 44 tasks (kind, cases) x 5 folds on random bags of some 50 patches, 384 wide. `together`
        is seal.train.mil.train_jobs; `plain` is the loop that one writes, one training after the other: autograd,
        torch's fused AdamW and cosine, bags in memory. It is timed on some of the jobs, spread over the tasks, and
        counted up by steps. With the same draws the weights of those must agree to 1e-5 after three epochs.
        `processor` counts what the process itself used, which a busy machine changes less.
stream  bags of 10,000 patches, 1,536 wide, float16 on disk and bfloat16 in memory, which holds a part of them: peak
        memory of the process, and what an epoch of five folds takes.

At Patho-Bench's width, the default, `jobs` takes an hour on two cores; `--hidden 32 --epochs 3` some minutes.

    python benchmarks/mil.py [--only jobs] [--hidden 32] [--epochs 20] [--plain 6] [--slides 20] [--tiny]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seal.models import mil
from seal.train.bags import Bags
from seal.train.loop import make_seed
from seal.train.mil import train_jobs
from seal.train.mil_jobs import MilJob, MilSettings
from seal.train.mil_stack import Stack, bag_number, order_bags

WIDTH, PATCHES, FOLDS = 384, (40, 60), 5
# kind and classes, and the cases of each such task of the simulated cohort
TASKS = {
    ("classes", 2): (141, 61, 141, 141, 49, 141, 64, 28, 52, 77, 61, 67, 52, 141, 43, 141, 65, 135, 135),
    ("classes", 3): (61, 141, 56),
    ("classes", 4): (141,),
    ("classes", 5): (35,),
    ("classes", 7): (56,),
    ("classes", 30): (200,),
    ("grades", 3): (141, 141),
    ("grades", 6): (56, 56),
    ("numbers", 1): (141,) * 12,
    ("survival", 1): (141, 141),
}


def write_bags(folder: Path, number: int, patches: tuple[int, int], width: int, kind: type) -> Bags:
    """Write random bags; some hundred rows, again and again."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((512, width)).astype(kind)
    for i in range(number):
        with h5py.File(folder / f"C{i}.h5", "w") as file:
            file["features"] = rows[rng.integers(len(rows), size=rng.integers(*patches, endpoint=True))]
    return Bags(folder, {f"C{i}": (f"C{i}",) for i in range(number)})


def draw_jobs(tasks: dict, cases: int) -> list[MilJob]:
    """Deal each task's cases, which most tasks share, to folds, with random labels."""
    rng, jobs = np.random.default_rng(1), []
    for (kind, classes), sizes in tasks.items():
        for size in sizes:
            chosen = rng.choice(max(min(size, cases), min(141, cases)), min(size, cases), replace=False)
            values = (
                rng.standard_normal(cases)
                if kind == "numbers"
                else rng.integers(4 if kind == "survival" else classes, size=cases)
            )
            event = rng.random(cases) < 0.6
            for fold in range(FOLDS):
                test, train = chosen[fold::FOLDS], np.setdiff1d(chosen, chosen[fold::FOLDS])
                names, own = (tuple(f"C{i}" for i in side) for side in (train, test))
                died = tuple(event[train].tolist()) if kind == "survival" else ()
                labels = tuple(map(float, values[train]))
                jobs.append(
                    MilJob(kind, names, labels, own, len(jobs), classes=classes, event=died, name=f"job {len(jobs)}")
                )
    return jobs


def forward_plainly(p: dict[str, Tensor], x: Tensor, drop: Callable[[Tensor, float], Tensor]) -> Tensor:
    """ABMIL of one run."""
    h = drop(F.gelu(torch.addmm(p["before.bias"][0], x, p["before.weight"])), 0.1)
    a = drop(torch.tanh(torch.addmm(p["attend.bias"][0], h, p["attend.weight"])), 0.25)
    a = (a @ p["score.weight"]).softmax(dim=0)  # [n, 1]
    z = drop(F.gelu(torch.addmm(p["after.bias"][0], a.T @ h, p["after.weight"])), 0.1)
    return torch.addmm(p["head.bias"][0], z, p["head.weight"])


def train_plainly(job: MilJob, held: dict[str, Tensor], settings: MilSettings, same_draws: bool) -> dict[str, Tensor]:
    """One training, a step a bag; with torch's dropout, or with the draws of the batched one."""
    model = mil.make_mil(settings.model, 1, WIDTH, job.outputs, settings.hidden, settings.attention)
    model.start(0, make_seed(job.seed))
    p = {name: value[0].detach().clone().requires_grad_() for name, value in model.named_parameters()}
    optimiser = torch.optim.AdamW(p.values(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    plan = [name for epoch in range(settings.epochs) for (name,) in order_bags(job.train, epoch, settings)]
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(plan), eta_min=1e-8)
    mean, sd = job.scale
    label = {
        name: torch.tensor([(value - mean) / sd], dtype=torch.float32)
        for name, value in zip(job.train, job.labels, strict=True)
    }
    event = dict(zip(job.train, job.event, strict=False))
    weight = dict(zip(job.train, map(torch.tensor, mil.balance(job.labels)), strict=True))
    drop = F.dropout
    for step, name in enumerate(plan):
        if same_draws:
            draws = mil.Draws(torch.tensor([job.seed]), torch.tensor([step]), bag_number(name))
            drop = lambda x, q, draws=draws: draws.drop(x[None], q)[0]  # noqa: E731
        outputs, y = forward_plainly(p, held[name], drop), label[name]
        if job.kind == "numbers":
            loss = ((outputs[:, 0] - y) ** 2).mean()
        elif job.kind == "survival":
            loss = mil.survival_loss(outputs, y.long(), torch.tensor([event[name]])).mean()
        else:
            loss = weight[name] * F.cross_entropy(outputs, y.long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cosine.step()
    return p


def time_both(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of the processor."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def compare(arguments: argparse.Namespace) -> None:
    """Time both ways and print one JSON line."""
    from common import report

    tasks, cases = (TASKS, 200) if not arguments.tiny else ({("classes", 2): (20,), ("survival", 1): (20,)}, 20)
    settings = MilSettings(hidden=arguments.hidden, attention=arguments.hidden, epochs=arguments.epochs)
    with tempfile.TemporaryDirectory() as folder:
        bags, jobs = write_bags(Path(folder), cases, PATCHES, WIDTH, np.float32), draw_jobs(tasks, cases)
        together, together_own = time_both(lambda: train_jobs(bags, jobs, settings))
        some = jobs[:: -(-len(jobs) // arguments.plain)]
        train_plainly(some[0], bags._held, replace(settings, epochs=1), same_draws=False)  # warm up
        plain, plain_own = time_both(
            lambda: [train_plainly(job, bags._held, settings, same_draws=False) for job in some]
        )
        few = replace(settings, epochs=min(settings.epochs, 3))
        stack = Stack(jobs, WIDTH, few)
        list(stack.fit(bags))
        weights, difference = stack._cut(stack.weights), 0.0
        for job in some:
            for name, value in train_plainly(job, bags._held, few, same_draws=True).items():
                own = weights[name][jobs.index(job)][..., : value.shape[-1]]
                difference = max(difference, (own - value).abs().max().item())
    assert difference < 1e-5, f"weights differ by {difference}"
    steps = [settings.epochs * len(job.train) for job in jobs]
    share = sum(settings.epochs * len(job.train) for job in some) / sum(steps)
    plain, plain_own = plain / share, plain_own / share
    form = mil.FORMS["abmil"]
    sizes = WIDTH, settings.hidden or WIDTH, settings.attention or form.attention
    patches = sum(PATCHES) / 2
    flop = 2 * patches * (2 * sizes[0] * sizes[1] + 3 * sizes[1] * sizes[2])  # inputs need no gradient
    report(
        "mil: all tasks and folds as one training against one after the other",
        tasks=sum(map(len, tasks.values())),
        jobs=len(jobs),
        bag_steps=sum(steps),
        sizes=sizes,
        epochs=settings.epochs,
        tera_flop=flop * sum(steps) / 1e12,
        plain_jobs=len(some),
        seconds={"together": together, "plain": plain},
        processor={"together": together_own, "plain": plain_own},
        microseconds_a_step={"together": together / sum(steps) * 1e6, "plain": plain / sum(steps) * 1e6},
        ratio=plain / together,
        processor_ratio=plain_own / together_own,
        largest_difference=difference,
        threads=torch.get_num_threads(),
    )


def stream(arguments: argparse.Namespace) -> None:
    """Train five folds for an epoch from disk and print one JSON line."""
    from common import report
    from memory import peak_gb

    patches, width, slides, memory = (10_000, 1536, arguments.slides, arguments.memory)
    if arguments.tiny:
        patches, width, slides, memory = 300, 32, 10, 0.0001
    settings = MilSettings(
        hidden=arguments.hidden, attention=arguments.hidden, epochs=1, bag=2048 if not arguments.tiny else 64
    )
    with tempfile.TemporaryDirectory() as folder:
        written = write_bags(Path(folder), slides, (patches, patches), width, np.float16)
        bags, jobs = (
            Bags(written.folder, written.slides, memory, "bfloat16"),
            draw_jobs({("classes", 2): (slides,)}, slides),
        )
        before, start = peak_gb(), time.perf_counter()
        train_jobs(bags, jobs, settings)
        taken = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e9
    report(
        "mil: an epoch of five folds, and their predictions, from disk",
        slides=slides,
        patches=patches,
        width=width,
        hidden=settings.hidden,
        files_gb=size,
        memory_gb=memory,
        held=len(bags._held),
        before_gb=before,
        peak_gb=peak_gb(),
        over_gb=peak_gb() - before,
        seconds=taken,
        seconds_a_run_and_bag=taken / (FOLDS * slides),
    )


def main() -> None:
    """Run what is asked for, the streaming in a process of its own, whose peak of memory counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("jobs", "stream"))
    parser.add_argument("--hidden", type=int, help="width of layers and attention; Patho-Bench's by default")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--plain", type=int, default=6, help="trainings that the plain loop is timed on")
    parser.add_argument("--slides", type=int, default=20, help="that are streamed")
    parser.add_argument("--memory", type=float, default=0.6, help="GB for bags and runs when they are streamed")
    parser.add_argument("--tiny", action="store_true", help="to see that it runs")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.hidden, arguments.epochs, arguments.plain = 8, 2, 2
    if arguments.only == "stream":
        stream(arguments)
        return
    compare(arguments)
    if arguments.only is None:
        subprocess.run([sys.executable, *sys.argv, "--only", "stream"], check=True)


if __name__ == "__main__":
    main()
