import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial import cKDTree

from seal_atlas import tables
from seal_atlas.growing.grow import grow_tissue
from seal_atlas.showing import render, stains

SIZE = (300.0, 340.0)
SITE = tables.sites()["A"]
KINDS = list(tables.cell_types())


@pytest.fixture(scope="module")
def breast():
    grown = grow_tissue([3], "Breast", "Cancer", SIZE)
    return grown, render.draw_light(grown, stains.Stain(), SITE, [3])


def test_light_has_the_sections_size(breast):
    _, light = breast
    assert light.shape == (600, 680, 3)
    assert light.dtype == np.uint16


def test_light_follows_beer_and_lambert():
    amounts = np.random.default_rng(0).uniform(0, 0.8, (40, 50, 3)).astype(np.float32)
    stain = stains.Stain(1.1, 0.9, 0.4, 0.0)
    density = amounts @ stain.vectors
    np.testing.assert_allclose(stains.transmit_light(amounts, stain), 65535 * 10**-density, rtol=3e-3, atol=2)


def test_stain_vectors_have_unit_length_times_strength():
    np.testing.assert_allclose(np.linalg.norm(stains.Stain(1.3, 0.7, 0.5).vectors, axis=1), [1.3, 0.7, 1.0])


def test_nuclei_are_drawn_where_the_cells_are(breast):
    grown, light = breast
    cells = grown.cells
    x, y = np.clip((cells.xy * 2).astype(int), 0, [679, 599]).T
    rows, cols = np.mgrid[:600:3, :680:3]
    away = cKDTree(cells.xy).query(np.stack([cols.ravel(), rows.ravel()], axis=1) / 2)[0].reshape(rows.shape) > 8
    background = light[::3, ::3, 0][away].mean()
    for kind in np.unique(cells.kind[cells.length > 0]):
        mine = cells.kind == kind
        if mine.sum() > 5:
            assert light[y[mine], x[mine], 0].mean() < 0.75 * background, KINDS[kind]


def test_colours_are_those_of_haematoxylin_and_eosin():
    for organ, state in (("Breast", "Cancer"), ("Liver", "Healthy"), ("Skin", "Healthy"), ("Brain", "Healthy")):
        light = render.draw_light(grow_tissue([1], organ, state, SIZE), stains.Stain(), SITE, [1]) / 65535
        red, green, blue = light.reshape(-1, 3).mean(axis=0)
        assert green < min(red, blue)


def test_softening_equals_a_plain_convolution():
    rng = np.random.default_rng(1)
    amounts = rng.random((30, 20, 3)).astype(np.float32)
    padded = np.pad(amounts, ((1, 1), (0, 0), (0, 0)), mode="edge")
    rows = 0.6 * padded[1:-1] + 0.2 * (padded[:-2] + padded[2:])
    padded = np.pad(rows, ((0, 0), (1, 1), (0, 0)), mode="edge")
    expected = 0.6 * padded[:, 1:-1] + 0.2 * (padded[:, :-2] + padded[:, 2:])
    stains.blur_amounts(amounts, 0.2)
    np.testing.assert_allclose(amounts, expected, atol=1e-6)


def test_glass_lets_all_light_through():
    grown = grow_tissue([2], "Breast", "Cancer", SIZE, outlined=True)
    clean = tables.Site("X", "training", "S1", 1, 1, 0.5, 0, 0, 0, 0)
    light = render.draw_light(grown, stains.Stain(thickness=0), clean, [2])
    assert (light[:4, :4] == 65535).all()
    assert light[300, 340].min() < 65535


def test_folds_darken_and_bubbles_pale():
    amounts = np.full((400, 400, 3), 0.2, dtype=np.float32)
    folded, bubbled = amounts.copy(), amounts.copy()
    site = {"site": "X", "role": "training", "scanner": "S1", "haematoxylin": 1, "eosin": 1, "hue": 0.5}
    site |= {"spread": 0, "thickness": 0}
    stains.add_blemishes(np.random.default_rng(0), folded, tables.Site(**site, folds=200, bubbles=0), 0.5)
    stains.add_blemishes(np.random.default_rng(0), bubbled, tables.Site(**site, folds=0, bubbles=200), 0.5)
    assert folded.max() > 0.3
    assert folded.min() == pytest.approx(0.2)
    assert bubbled.min() < 0.15


def test_a_site_stains_its_donors_alike_but_not_the_same():
    drawn = [stains.stain_of_donor(tables.sites()["B"], np.random.default_rng(n)) for n in range(300)]
    strength = np.array([s.haematoxylin for s in drawn])
    assert strength.mean() == pytest.approx(tables.sites()["B"].haematoxylin, rel=0.03)
    assert np.log(strength).std() == pytest.approx(tables.sites()["B"].spread, rel=0.15)


PROGRAM = """
import hashlib
from seal_atlas import tables
from seal_atlas.showing import render, stains
from seal_atlas.growing.grow import grow_tissue
digest = hashlib.sha256()
for organ, state in (("Breast", "Cancer"), ("Bowel", "Healthy"), ("Liver", "Diseased")):
    grown = grow_tissue([4], organ, state, (250.0, 250.0))
    digest.update(render.draw_light(grown, stains.Stain(), tables.sites()["A"], [4]).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_the_same_bytes_on_a_lesser_cpu(tmp_path):
    """Without this CPU's vector instructions in numpy, BLAS and compiled loops, the same pictures come out."""
    lesser = {
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR AVX2 FMA3",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONWARNINGS": "ignore",
    }
    found = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env={**os.environ, **more}, capture_output=True, text=True, check=True
        ).stdout
        for more in ({}, lesser)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(("organ", "state"), [("Cervix", "Healthy"), ("Bowel", "Treated"), ("Pancreas", "Cancer")])
def test_no_ink_is_less_than_none(organ, state):
    for seed in range(3):
        grown = grow_tissue([seed], organ, state, (700.0, 700.0))
        amounts = render.draw_amounts(grown, np.random.default_rng(seed))
        assert amounts.min() >= 0
        assert stains.transmit_light(amounts, stains.Stain()).min() > 100  # nothing is quite black


def test_less_than_no_ink_would_be_glass_not_black():
    amounts = np.full((2, 2, 3), -0.01, dtype=np.float32)
    assert (stains.transmit_light(amounts, stains.Stain()) == 65535).all()
