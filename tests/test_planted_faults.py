"""The tests see faults: each of these is planted alone into a copy of the package, and its tests must fail.

The tests are named one by one, run in seconds, and need no fixture of a conftest.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from seal.paths import PROJECT


class Fault(NamedTuple):
    """One wrong piece of code, and the tests that must see it."""

    module: str  # in seal
    old: str  # stands there once
    new: str
    test: str  # file in tests/seal, and test


LOSSES, OMICS, VISION = "test_losses.py", "models/test_omics.py", "models/test_vision.py"
STEPS, LOOP, TOKENS = "train/test_steps_over_processes.py", "train/test_loop.py", "train/test_tokens.py"
PROBE, METRICS, SCORING = "evaluate/test_probe.py", "evaluate/test_metrics.py", "evaluate/test_scoring.py"
FOLDS, PANEL, SAVE = "data/test_folds.py", "data/test_panel.py", "export/test_save.py"
ADD_UP = "test_the_gradients_of_all_processes_add_up_to_those_of_one"

FAULTS = (
    Fault("losses", "F.cross_entropy(logits.T, target)", "F.cross_entropy(logits, target)",
          f"{LOSSES}::test_info_nce_equals_a_plain_loop"),
    Fault("losses", "- 2 * mean_kernel(x_hat, x)", "- mean_kernel(x_hat, x)",
          f"{LOSSES}::test_losses_of_raw_values_equal_their_plain_twins"),
    Fault("models/omics", "(1 - h**2)", "(1 - h)", f"{OMICS}::test_flow_log_det_equals_autograd_jacobian"),
    Fault("models/omics", "log_det = log_det + step", "log_det = step",
          f"{OMICS}::test_the_log_determinants_of_all_flows_are_summed"),
    Fault("models/vision", "nn.init.zeros_(self.up.weight)", "nn.init.ones_(self.up.weight)",
          f"{VISION}::test_each_adapter_changes_nothing_at_the_start"),
    Fault("train/steps", "share=1 / parallel.state().num_processes", "share=1", f"{STEPS}::{ADD_UP}"),
    Fault("train/steps", "parallel.sum_gradients(self.model.encoder.parameters())", "pass", f"{STEPS}::{ADD_UP}"),
    Fault("train/steps", "start // BLOCK)", "start)",
          f"{STEPS}::test_a_step_learns_from_augmented_views_of_the_batch_s_own_pairs"),
    Fault("train/loop", "make_seed(seed, epoch)))", "seed))",
          f"{LOOP}::test_every_row_once_an_epoch_and_cosine_rate"),
    Fault("train/loop", "make_seed(seed, epoch, i)", "make_seed(seed, epoch)",
          f"{LOOP}::test_every_batch_draws_from_a_seed_of_its_own_whatever_was_done_before"),
    Fault("train/loop", "math.cos(math.pi * step / steps)", "math.cos(math.pi * epoch / steps)",
          f"{LOOP}::test_every_row_once_an_epoch_and_cosine_rate"),
    Fault("train/tokens", "if not all(each[part] for each in done)", "if part == 0 or not all(d[part] for d in done)",
          f"{TOKENS}::test_a_killed_run_goes_on_and_ends_with_the_same_bytes"),
    Fault("train/tokens", "self.rows.read(views * self.rows.shape[1] + rows)",
          "self.rows.read(views * self.rows.shape[0] + rows)", f"{TOKENS}::test_rows_come_back_as_they_were_put"),
    Fault("evaluate/ridge", "np.add.outer(", "np.subtract.outer(", f"{PROBE}::test_equals_scikit_learn"),
    Fault("evaluate/probe", "np.argmax(scores)", "np.argmin(scores)",
          f"{PROBE}::test_alpha_is_chosen_on_the_training_groups"),
    Fault("evaluate/metrics", "np.where(flat_x, 0.0, r)", "np.where(flat_x, np.nan, r)",
          f"{METRICS}::test_constant_prediction_scores_zero_and_constant_truth_is_left_out"),
    Fault("evaluate/metrics", "tail = (1 - level) / 2", "tail = 1 - level",
          f"{METRICS}::test_interval_is_the_percentile_interval"),
    Fault("evaluate/scoring", 'values["mean"] - self.mean(', '-values["mean"] + self.mean(',
          f"{SCORING}::test_a_difference_is_what_a_method_gains_and_the_verdict_has_its_sign"),
    Fault("data/folds", "omics=_rows(outside)", "omics=_rows(sections)",
          f"{FOLDS}::test_expression_only_sections_serve_stage_one_alone"),
    Fault("data/folds", 's.role != "test"', 's.role == "test"', f"{FOLDS}::test_a_given_test_set_has_two_sides"),
    Fault("data/panel", "(-variability[i], genes[columns[i]])", "(variability[i], genes[columns[i]])",
          f"{PANEL}::test_select_finds_the_variable_gene_and_drops_the_rare_one"),
    Fault("data/panel", "(-variance[i], panel[i])", "(-variance[i], i)",
          f"{PANEL}::test_equal_variances_are_ordered_by_symbol"),
    Fault("export/save", "state[f\"{name}.weight\"] + delta", "state[f\"{name}.weight\"]",
          f"{SAVE}::test_what_is_loaded_embeds_as_what_was_saved[dinov2_s-lora]"),
    Fault("export/save", "weights.rename(name, older) for name in targets", "name for name in targets",
          f"{SAVE}::test_phikon_s_adapter_is_attached_whole_under_the_names_of_transformers_4"),
)  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in ("seal", "seal_atlas", "figures", "tests"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "demo", "her2st"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder


def run(folder: Path, tests: list[str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--noconftest", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    where = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
    return subprocess.run([*command, *(f"tests/seal/{test}" for test in tests)], check=False, **where)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.module}: {fault.new}")
def test_a_planted_fault_stands_where_it_says(fault):
    """Quick, so that the list cannot rot unseen."""
    text = (PROJECT / "seal" / f"{fault.module}.py").read_text(encoding="utf-8")
    assert text.count(fault.old) == 1
    file, test = fault.test.split("::")
    assert f"def {test.split('[')[0]}(" in (PROJECT / "tests" / "seal" / file).read_text(encoding="utf-8")


@pytest.mark.slow
def test_without_a_fault_they_pass(copy):
    done = run(copy, sorted({fault.test for fault in FAULTS}))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.module}: {fault.new}")
def test_a_planted_fault_is_seen(copy, fault):
    path = copy / "seal" / f"{fault.module}.py"
    whole = path.read_text(encoding="utf-8")
    try:
        path.write_text(whole.replace(fault.old, fault.new), encoding="utf-8")
        done = run(copy, [fault.test])
    finally:
        path.write_text(whole, encoding="utf-8")
    assert done.returncode == 1, f"{fault.test} does not see it:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert "1 failed" in done.stdout
