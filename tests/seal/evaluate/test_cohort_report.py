"""The report of a cohort: every number and verdict in words, every string of the user escaped, no other host."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from seal.data.slide_tasks import SlideTask
from seal.evaluate.cohort_report import Entered, find_warnings, write_report
from seal.evaluate.power import FOUND, NOT_FOUND, UNDECIDABLE

NASTY = '<script src="//x.y">&'
ENTERED = Entered(
    **{"command": "python -m seal slides 'a b'", "labels": f"{NASTY}.csv", "sha256": "abc123", "rows": 64},
    **{"lost": {"S60": "no picture", "S61": "no picture", f"S{NASTY}": "no tissue"}, "unlisted": ["Z1"]},
    **{"refused": {f"note{NASTY}": f"{NASTY} is no class"}, "models": {"base": "base", "own": f"my{NASTY}"}},
    **{"mil": "small", "um_per_px": 1.0, "size": 112, "site": True, "versions": {"torch": "9.9"}, "commit": None},
)


def make_task(n=60, kind="classes", site=None, positive=30):
    labels, survival = (np.arange(n) < positive).astype(int), {}
    if kind == "survival":
        survival = {"event": labels, "days": np.arange(n) + 365.0}
        labels = labels * 4
    folds = {
        f"fold_{k}": (np.flatnonzero(np.arange(n) % 5 != k), np.flatnonzero(np.arange(n) % 5 == k)) for k in range(5)
    }
    return SlideTask(
        **{"name": f"ER{NASTY}", "group": "cohort", "kind": kind, "classes": (f"no{NASTY}", "yes"), "folds": folds},
        **{"metric": "cindex" if kind == "survival" else "macro-ovr-auc", "labels": labels, "site": site},
        **{"cases": tuple(f"P{i}" for i in range(n)), "slides": tuple(f"S{i}" for i in range(n))},
        **{"dropped": {"no label": 4}, "notes": ("folds by case, since by site: Site A",), **survival},
    )


def make_rows(task, verdict=FOUND, difference=0.125, low=0.6):
    about = {"task": task.name, "model": "linear", "cases": len(task.cases), "seeds": 1, "mean": 0.7, "high": 0.8}
    base = about | {"method": "base", "label": "base", "low": low, "against": np.nan}
    judged = {"difference": difference, "difference_low": -0.25, "difference_high": 0.375, "p_holm": 0.0417}
    judged |= {"smallest": 0.211, "matters": 0.025, "verdict": verdict, "against": "base"}
    return pd.DataFrame([base, about | {"method": "own", "label": f"my{NASTY}", "low": low} | judged])


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.open, self.attributes = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self.open += [] if tag in ("meta", "br") else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data.split()


def write(tmp_path, task, rows, entered=ENTERED):
    text = write_report(tmp_path / "report.html", entered, [task], rows).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    return text, " ".join(page.words), page


def test_a_page_says_what_went_in_and_what_came_out(tmp_path):
    task = make_task()
    _, words, _ = write(tmp_path, task, make_rows(task))
    for said in (
        *(
            "60 slides of 60 cases, 1 task from",
            "2 slides left out: no picture (S60, S61)",
            "1 slide left out: no tissue",
        ),
        *(
            "1 picture not used",
            "Left out: 4 rows with no label.",
            "112 µm",
            "guessing gives 0.5",
            "0.700 [0.600, 0.800]",
        ),
        *(
            "+0.125 [−0.250, +0.375]",
            "0.042",
            "0.211",
            "Folds by case, since by site: Site A.",
            "python -m seal slides",
        ),
        *("abc123", "torch 9.9.", "yes (30 cases)", "Of 1 comparisons, 1 found a difference"),
    ):
        assert said in words, said
    assert "no column of sites" not in words
    assert "no column of sites" in write(tmp_path, task, make_rows(task), replace(ENTERED, site=False))[1]


def test_what_users_wrote_is_text_and_no_other_host_is_asked(tmp_path):
    task = make_task()
    text, words, page = write(tmp_path, task, make_rows(task))
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert "//" not in text.replace("&#34;//x.y", "")
    assert "url(" not in text
    assert "@import" not in text
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert words.count(NASTY) >= 8  # as it was written: task, class, model, slide, column, table
    assert "prefers-color-scheme: dark" in text
    assert ("name", "viewport") in page.attributes


@pytest.mark.parametrize(
    ("verdict", "difference", "words"),
    [
        (FOUND, 0.1, "is better than base."),
        (FOUND, -0.1, "is worse than base."),
        (NOT_FOUND, 0.1, "No difference found; one of 0.025 or more would probably have been."),
        (UNDECIDABLE, 0.1, "Cannot be decided with 60 cases: even a difference of 0.025 could have been missed."),
    ],
)
def test_a_verdict_is_said_in_words(tmp_path, verdict, difference, words):
    task = make_task()
    _, said, _ = write(tmp_path, task, make_rows(task, verdict, difference))
    assert words in said
    assert ("is better" in said, "is worse" in said) == (words.startswith("is better"), words.startswith("is worse"))


def test_bars_lie_where_the_numbers_are(tmp_path):
    task = make_task()
    _, _, page = write(tmp_path, task, make_rows(task))
    styles = [value for name, value in page.attributes if name == "style"]
    # the axis goes from 0.5, which is guessing, to 0.8
    assert styles == ["left:0.0%", "left:33.33%;width:66.67%", "left:66.67%"] * 2


def test_what_cannot_be_scored_is_not_drawn(tmp_path):
    task = make_task()
    rows = make_rows(task, UNDECIDABLE).assign(low=np.nan, high=np.nan, difference_low=np.nan, p_holm=np.nan)
    _, words, page = write(tmp_path, task, rows)
    assert "0.700 (no interval)" in words
    assert "not known" in words
    assert "i" not in page.tags


def test_one_model_is_compared_with_none(tmp_path):
    task = make_task()
    rows = make_rows(task)[:1]
    _, words, _ = write(tmp_path, task, rows, replace(ENTERED, models={"base": "base"}))
    assert "omparisons" not in words
    assert "minus" not in words


def warn(task, **about):
    return " ".join(find_warnings(task, make_rows(task, **about), 0.5))


def test_warnings_are_of_what_is_wrong_alone():
    sites = tuple("AB"[i % 2] for i in range(60))
    assert warn(make_task(site=sites)) == ""
    assert "Only 20 cases" in warn(make_task(20, positive=10))
    assert "Only 6 cases of yes" in warn(make_task(positive=6))
    assert "All cases of yes are from one site, B" in warn(make_task(site=tuple("BA"[i >= 30] for i in range(60))))
    assert "one site" not in warn(make_task(site=("A",) * 60))  # which cannot tell classes
    assert "Only 10 events" in warn(make_task(kind="survival", positive=10))
    assert "event" not in warn(make_task(kind="survival"))
    assert "lies above guessing" in warn(make_task(), low=0.45)
    below = find_warnings(make_task(), make_rows(make_task()).assign(mean=0.3, low=0.1, high=0.4), 0.5)
    assert "lies below guessing" in below[1]
