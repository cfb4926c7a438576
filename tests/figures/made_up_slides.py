"""Made-up results of the slide level, as notebook 05 writes them: deterministic, each number known by its place."""

from base64 import b64encode
from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image

# method -> label, kind, what it adds to the frozen encoder's score
METHODS = {
    "frozen": ("frozen encoder", "encoder", 0.0),
    "seal": ("SEAL", "adapted", 0.10),
    "seal_shuffled": ("SEAL, shuffled pairs", "control", 0.02),
    "no_expression": ("adapter without expression", "control", 0.03),
    "pathomclip": ("PathOmCLIP's encoder, over the batch", "probed", 0.06),
    "stnet": ("ST-Net's encoder", "probed", 0.04),
    "random": ("random weights", "control", -0.08),
}
RIVALS = ("seal_shuffled", "no_expression", "pathomclip", "stnet")  # of SEAL
COUNTS = {"molecular": 18, "pathway": 12, "response": 8, "morphology": 6}
KEYS = ["encoder", "method", "label", "kind", "model", "against"]


def task_metric(group: str, number: int) -> tuple[str, float]:
    """Metric of a task, and its value of guessing."""
    if group == "molecular":
        return ("bacc", 1 / 3) if number % 6 == 5 else ("macro-ovr-auc", 0.5)
    if group == "pathway":
        return "pearson", 0.0
    if group == "response":
        return ("cindex", 0.5) if number > 5 else ("macro-ovr-auc", 0.5)
    return ("weighted_kappa", 0.0) if number < 2 else ("bacc", 0.2)


def slide_summary(encoders=("own",), simulated=True, methods=METHODS) -> pd.DataFrame:
    """All 44 tasks; task i of a group scores chance + 0.01 + 0.02 i when frozen, 0.03 more an encoder further on."""
    rows = []
    for e, encoder in enumerate(encoders):
        chosen = methods if not e else {name: methods[name] for name in ("frozen", "seal")}
        for model in ("abmil", "linear", "mean"):
            for group, count in COUNTS.items():
                if model == "mean" and group != "molecular":
                    continue
                for i in range(count):
                    rows += _task_rows(group, i, e, encoder, model, chosen, simulated)
    return pd.DataFrame(rows)


def _task_rows(group, i, e, encoder, model, methods, simulated) -> list[dict]:
    metric, chance = task_metric(group, i)
    base = chance + 0.01 + 0.02 * i + 0.03 * e
    strength = ("none" if i == 0 else "strong") if simulated else np.nan
    about = {"task": f"{group}_{i}", "group": group, "metric": metric, "strength": strength, "encoder": encoder}
    about |= {"model": model, "cases": 40 + i, "folds": 5, "seeds": 2, "resample": "cases", "claimed": np.nan}
    about |= {"chance": chance, "oracle": chance + 0.4 if simulated else np.nan, "matters": 0.05 * (1 - chance)}
    rows = []
    for method, (label, kind, gain) in methods.items():
        own = about | {"method": method, "label": label, "kind": kind, "mean": base + gain}
        own |= {"low": base + gain - 0.05, "high": base + gain + 0.06}
        pairs = ["frozen"] * (method != "frozen") + [r for r in RIVALS if method == "seal" and r in methods]
        pairs += ["stnet"] * (method == "pathomclip")
        rows += [own | {"against": np.nan}] if method == "frozen" else []
        rows += [own | _difference(gain - methods[r][2], base + methods[r][2], i) | {"against": r} for r in pairs]
    return rows


def _difference(value: float, base: float, i: int) -> dict:
    """Found where it is not small and the task is the first or second; the third is decided otherwise."""
    found = abs(value) > 0.05 and i < 2
    row = {"base": base, "difference": value, "difference_low": value - 0.04, "difference_high": value + 0.05}
    row |= {"error": 0.02, "difference_p": 0.01, "p_holm": 0.0005 if found else 0.4, "smallest": 0.07}
    row |= {"smallest_relative": 0.07 / base if base > 0.05 else np.nan}
    return row | {"verdict": "found" if found else "not found" if i == 2 else "undecidable at this n"}


def slide_groups(summary: pd.DataFrame) -> pd.DataFrame:
    """Means of groups, and of all three, with verdicts counted."""
    rows, three = [], summary["group"] != "morphology"
    for group in (*COUNTS, "all"):
        chosen = summary[three] if group == "all" else summary[summary["group"] == group]
        for key, own in chosen.groupby(KEYS, sort=False, dropna=False):
            mean, gain, found = own["mean"].mean(), own["difference"].mean(), own["verdict"] == "found"
            row = dict(zip(KEYS, key, strict=True)) | {"group": group, "tasks": len(own), "cases": own["cases"].max()}
            row |= {"mean": mean, "low": mean - 0.02, "high": mean + 0.03, "difference": gain, "difference_p": 0.03}
            row |= {"difference_low": gain - 0.01, "difference_high": gain + 0.02, "seeds": 2, "resample": "cases"}
            row |= {"found": (found & (own["difference"] > 0)).sum(), "lost": (found & (own["difference"] < 0)).sum()}
            rows.append(row | {"undecided": own["verdict"].eq("undecidable at this n").sum()})
    return pd.DataFrame(rows)


def slide_encoders(names=("own",)) -> pd.DataFrame:
    """Their labels."""
    return pd.DataFrame({"name": names, "label": [f"{name}-S" for name in names]})


def survival_table(tasks=("OS", "PFS"), days=2400) -> pd.DataFrame:
    """Curves of ten cases a risk, one leaves at each step; those of high risk die faster."""
    rows = []
    for model in ("linear", "abmil"):
        for task in tasks:
            for method in ("frozen", "seal"):
                label, kind, _ = METHODS[method]
                about = {"task": task, "encoder": "own", "method": method, "label": label, "kind": kind, "model": model}
                for risk, fall in (("high", 0.09), ("low", 0.04)):
                    for step in range(10):
                        now = 1 - fall * step
                        own = about | {"risk": risk, "days": days * step / 9, "survival": now, "at_risk": 10 - step}
                        own |= {"low": max(now - 0.1, 0), "high": min(now + 0.1, 1)}
                        rows.append(own | {"p": 0.0004 if method == "seal" else 0.21})
    return pd.DataFrame(rows)


def attention_tables(simulated=(True, False)) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Slides of 4 x 5 patches; the frozen encoder looks everywhere alike, SEAL at the first patch twice as much."""
    file = BytesIO()
    Image.new("RGB", (24, 30), (220, 120, 180)).save(file, "JPEG")
    rows, slides = [], []
    for number, own in enumerate(simulated):
        about = {"slide": f"slide {number}", "task": "BRCA_type", "simulated": own}
        size = {"um_per_px": 0.5, "width": 4 * 448 + 100, "height": 5 * 448}
        known = {"truth": "ductal" if own else np.nan, "guess": "lobular" if own else np.nan}
        slides.append(about | known | size | {"jpeg": b64encode(file.getvalue()).decode()})
        for method in ("frozen", "seal"):
            label, kind, _ = METHODS[method]
            share = np.full(20, 1 / 20) if method == "frozen" else np.array([2, *[1] * 19]) / 21
            for i in range(20):
                place = {"x": 448 * (i % 4), "y": 448 * (i // 4), "side": 448, "attention": share[i]}
                rows.append(about | {"encoder": "own", "method": method, "label": label, "kind": kind} | place)
    return pd.DataFrame(rows), pd.DataFrame(slides)
