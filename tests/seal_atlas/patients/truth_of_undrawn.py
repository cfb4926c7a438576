"""The truth of a cohort whose slides nobody draws, for tests of labels and of what the truth tells."""

from collections.abc import Sequence

import numpy as np

from seal_atlas import tables
from seal_atlas.patients.people import Patient, morphology_factors
from seal_atlas.patients.tasks import CohortTruth


def expected_truth(patients: Sequence[Patient], composition: np.ndarray, seed: Sequence[int]) -> CohortTruth:
    """Truth of slides that are never drawn: cheap.

    Parameters
    ----------
    composition
        [n, cell types], shares of cells before what the patient's morphology does to them.

    Returns
    -------
    Immune cells, fibroblasts and goblet cells are multiplied by the patient's factors (immune cells by the programmes
    that call them in, too); activities are the state's mean, shifted, with a donor effect; scores are the change of
    activity plus noise (sd 0.15 logit), where slides have bulk expression.
    """
    rng = np.random.default_rng([*seed, 5])
    programmes, factors = tables.programmes(), list(morphology_factors())
    mean_logit, logit = np.empty((2, len(patients), len(programmes)))
    for column, programme in enumerate(programmes.values()):
        mean = np.clip([programme.level(p.state) for p in patients], 1e-3, 1 - 1e-3)
        shift = np.array([p.shifts.get(programme.name, 0.0) for p in patients])
        mean_logit[:, column] = np.log(mean / (1 - mean))
        logit[:, column] = mean_logit[:, column] + shift + programme.donor_sd * rng.standard_normal(len(patients))
    activity = 1 / (1 + np.exp(-logit))
    morphology = np.array([[p.morphology[f] for f in factors] for p in patients])
    called = np.prod([1 + p.immune * activity[:, i] for i, p in enumerate(programmes.values())], axis=0)
    cells = composition.copy()
    for column, cell in enumerate(tables.cell_types().values()):
        if cell.group == "immune":
            cells[:, column] *= called * morphology[:, factors.index("immune")]
        elif cell.cell == "fibroblast":
            cells[:, column] *= morphology[:, factors.index("fibrosis")]
        elif cell.cell == "goblet":
            cells[:, column] *= morphology[:, factors.index("mucin")]
    scores = logit - mean_logit + 0.15 * rng.standard_normal(logit.shape)
    cases = tuple(p.case for p in patients)
    return CohortTruth(cases, cells / cells.sum(axis=1, keepdims=True), activity, morphology, scores)
