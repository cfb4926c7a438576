"""Tissue drawn as haematoxylin, eosin and pigment at 0.5 um a pixel, whole sections at a time."""

import numpy as np
from numba import njit

from seal_atlas import tables
from seal_atlas.growing.fields import nearest_label, sort_into_squares, two_nearest
from seal_atlas.growing.grow import GrownTissue
from seal_atlas.growing.layout import STEP
from seal_atlas.showing.stains import Stain, add_blemishes, blur_amounts, transmit_light
from seal_atlas.tables import Site

UM_PER_PX = 0.5
_TEXTURE = 256  # points a side of the tables of noise


def draw_light(tissue: GrownTissue, stain: Stain, site: Site, seed: list[int]) -> np.ndarray:
    """Draw a section as the light that passes through it.

    Returns
    -------
    uint16 [H, W, 3] at 0.5 um/px, 65,535 where there is nothing.
    """
    rng = np.random.default_rng([*seed, 10])
    amounts = draw_amounts(tissue, rng)
    add_blemishes(np.random.default_rng([*seed, 11]), amounts, site, UM_PER_PX)
    for _ in range(2):
        blur_amounts(amounts, min(0.25, 0.3 * stain.thickness))
    return transmit_light(amounts, stain)


def draw_amounts(tissue: GrownTissue, rng: np.random.Generator) -> np.ndarray:
    """Amounts of haematoxylin, eosin and pigment of a section, float32 [H, W, 3], OD."""
    layout = tissue.layout
    noise = rng.standard_normal((_TEXTURE, _TEXTURE)).astype(np.float32)
    smoothed = noise + 0.7 * (np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) + 0.5 * np.roll(noise, (1, 1), (0, 1))
    noise = np.stack([noise * 1.5, smoothed / smoothed.std() * 1.25]).astype(np.float32)
    height, width = (round(side / UM_PER_PX) for side in layout.size)
    amounts = np.zeros((height, width, 3), dtype=np.float32)
    fields = np.stack([layout.glass, layout.distance, *layout.flow], axis=-1).astype(np.float32)
    ground, bodies, lumens = _parameters(tissue)
    edge, tone = _borders(tissue, rng, (height // 2 + 1, width // 2 + 1))
    turn = np.stack([np.cos(layout.turn), np.sin(layout.turn), layout.cut], axis=1).astype(np.float32)
    paint_tissue(
        amounts, fields, layout.compartment, layout.owner, layout.structure, layout.hollow, turn, ground, bodies,
        lumens, edge, tone, noise, STEP / UM_PER_PX,
    )  # fmt: skip
    _stamp_cells(amounts, tissue, rng, noise[0])
    return amounts


def _parameters(tissue: GrownTissue) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the ground [compartments, 7], of the structures [structures, 11], and their lumens' codes."""
    from statistics import NormalDist

    normal = NormalDist()
    ground = [
        (c.eosin, c.haematoxylin, c.fibre, 1 / c.width, 1 / c.length, _quantile(normal, c.cleft), c.flow == "swirl")
        for c in tissue.architecture.compartments
    ]
    columns = ("wall", "eosin", "haematoxylin", "pigment", "polar", "border", "clear", "fibre", "halo")
    kinds = tissue.architecture.structures
    bodies = [[*(getattr(s, c) for c in columns), s.along == "random", s.form == "fill"] for s in kinds] or [[0.0] * 11]
    lumens = [tables.VOCABULARY["lumen"].index(s.lumen) for s in kinds] or [0]
    return np.array(ground, np.float32), np.array(bodies, np.float32), np.array(lumens, np.int64)


def _quantile(normal, share: float) -> float:
    return normal.inv_cdf(min(max(share, 1e-6), 1 - 1e-6))


def _borders(tissue: GrownTissue, rng, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest border between cells (1/20 um, up to 255) and the cell's tone, uint8, at 1 um/px."""
    edge, tone = np.full(shape, 255, np.uint8), np.full(shape, 128, np.uint8)
    layout, kinds = tissue.layout, tissue.architecture.structures
    shown = np.array([s.border > 0 or s.clear > 0 for s in kinds] or [False])
    if not shown.any():
        return edge, tone
    per_point = int(STEP)
    wanted = (layout.distance < 1) & shown[layout.structure[layout.owner]] & (layout.owner > 0)
    wanted = np.repeat(np.repeat(wanted, per_point, 0), per_point, 1)[1:, 1:][: shape[0], : shape[1]]
    rows, cols = np.nonzero(wanted)
    owner = nearest_label(layout.owner, tissue.cells.xy, STEP)
    points = tissue.cells.xy[shown[layout.structure[owner]] & (owner > 0)]
    if not len(points) or not len(rows):
        return edge, tone
    at = np.stack([cols, rows], axis=1).astype(np.float64)
    near, far, which = two_nearest(at, points, *sort_into_squares(points, 10.0), 10.0)
    edge[rows, cols] = np.minimum((far - near) * 10, 255).astype(np.uint8)
    tones = np.clip(128 + 40 * rng.standard_normal(len(points) + 1), 0, 255).astype(np.uint8)
    tone[rows, cols] = tones[which]
    return edge, tone


@njit(cache=True, nogil=True)
def grain(noise, a, b):
    """Read a table of noise at (a, b), bilinear and wrapped."""
    a += 4096.0
    b += 4096.0
    i, j = int(a), int(b)
    u, v = a - i, b - j
    i0, i1, j0, j1 = i & 255, (i + 1) & 255, j & 255, (j + 1) & 255
    top = noise[i0, j0] * (1 - v) + noise[i0, j1] * v
    bottom = noise[i1, j0] * (1 - v) + noise[i1, j1] * v
    return top * (1 - u) + bottom * u


@njit(cache=True, nogil=True)
def cover_by_red_cell(noise, x, y):
    """How much of a red cell lies at a point (um) of a vessel's lumen, 0 to 1: discs on a jittered grid of 6 um."""
    best = 0.0
    i, j = int(x / 6), int(y / 6)
    for r in range(j - 1, j + 2):
        for c in range(i - 1, i + 2):
            dx = x - (c + 0.5 + 0.25 * noise[c & 255, r & 255]) * 6
            dy = y - (r + 0.5 + 0.25 * noise[r & 255, (c + 7) & 255]) * 6
            away = (dx * dx + dy * dy) ** 0.5
            if noise[(c + 31) & 255, (r + 5) & 255] > -0.9:
                best = max(best, min(1.0, (3.3 - away) * 1.5))
    return best


@njit(cache=True, nogil=True)
def fill_lumen(code, noise, x, y, below):
    """Haematoxylin, eosin and pigment of what fills a lumen, `below` um from its wall."""
    if code == 1:  # secretion
        return 0.01, 0.09 + 0.02 * grain(noise[1], x / 5, y / 5), 0.0
    if code == 2:  # mucin
        wisp = grain(noise[1], x / 3, y / 14)
        return max(0.07 + 0.03 * wisp, 0.0), max(0.05 + 0.02 * wisp, 0.0), 0.0
    if code == 3:  # blood
        cell = cover_by_red_cell(noise[0], x, y)
        return 0.0, 0.04 + 0.42 * cell, 0.16 * cell
    if code == 4:  # debris of dead cells
        speck = min(1.0, max(0.0, grain(noise[1], x / 1.9, y / 1.9) - 1.2) * 1.5)
        return 0.07 + 0.40 * speck, 0.28 + 0.05 * grain(noise[1], x / 3, y / 3), 0.02
    if code == 5:  # keratin, in leaves
        leaf = grain(noise[1], below / 2.2, x / 40)
        return 0.02, max(0.50 + 0.22 * leaf, 0.05), 0.05
    if code == 6:  # colloid, scalloped where it meets the wall
        if below < 2.0 + 1.6 * grain(noise[1], x / 6, y / 6):
            return 0.0, 0.03, 0.0
        return 0.03, 0.44 + 0.02 * grain(noise[1], x / 12, y / 12), 0.0
    if code == 7:  # fluid
        return 0.0, 0.07 + 0.015 * grain(noise[1], x / 8, y / 8), 0.0
    return 0.0, 0.015, 0.0


@njit(cache=True, nogil=True)
def paint_tissue(
    amounts, fields, compartment, owner, structure, hollow, turn, ground, bodies, lumens, edge, tone, noise, scale
):  # fmt: skip
    """Draw ground, cytoplasm and lumens, in place; `scale` pixels a point of the fields."""
    height, width, _ = amounts.shape
    for y in range(height):
        r = int(y / scale)
        v = y / scale - r
        r0 = int(y / scale + 0.5)
        for x in range(width):
            c = int(x / scale)
            u = x / scale - c
            a, b, g, k = (1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v
            p00, p01, p10, p11 = fields[r, c], fields[r, c + 1], fields[r + 1, c], fields[r + 1, c + 1]
            glass = a * p00[0] + b * p01[0] + g * p10[0] + k * p11[0]
            if glass > 0:
                continue
            d = a * p00[1] + b * p01[1] + g * p10[1] + k * p11[1]
            across = a * p00[2] + b * p01[2] + g * p10[2] + k * p11[2]
            along = a * p00[3] + b * p01[3] + g * p10[3] + k * p11[3]
            c0 = int(x / scale + 0.5)
            body = owner[r0, c0]
            kind = structure[body]
            q = bodies[kind]
            um_x, um_y = x * 0.5, y * 0.5
            h, e, p = 0.0, 0.0, 0.0
            if body == 0 or d > q[8]:
                # Where two grounds meet they interlock, instead of along the coarse grid.
                away_x = x + 5 * grain(noise[1], um_x / 3, um_y / 3)
                away_y = y + 5 * grain(noise[1], um_x / 3 + 55, um_y / 3)
                i0 = min(max(int(away_y / scale + 0.5), 0), compartment.shape[0] - 1)
                j0 = min(max(int(away_x / scale + 0.5), 0), compartment.shape[1] - 1)
                s = ground[compartment[i0, j0]]
                if s[6] > 0:  # fibres that swirl run where another field sends them
                    across, along = across + 0.55 * along, along - 0.55 * across
                coarse = grain(noise[1], across * s[3], along * s[4])
                fine = grain(noise[1], across * s[3] * 2.9 + 77, along * s[4] * 2.3)
                thread = grain(noise[1], across * 1.1 + 31, along * 0.11 + 9)
                cleft = min(1.0, max(0.0, (s[5] - coarse - 0.35 * fine) * 2.5))
                rough = 1 + s[2] * (0.5 * coarse + 0.45 * fine + 0.45 * thread) + 0.05 * grain(noise[0], um_x, um_y)
                e = max(s[0] * rough, 0.02) * (1 - 0.9 * cleft)
                h = s[1] * (1 - cleft)
            elif d > 0:
                e = 0.02  # a halo
            elif hollow[body] and -d > q[0]:
                h, e, p = fill_lumen(lumens[kind], noise, um_x, um_y, -d - q[0])
            elif q[7] > 0:
                t = turn[body]
                if q[9] == 0:
                    a2, b2, short = across, along, 1.0
                else:
                    a2, b2 = across * t[0] - along * t[1], across * t[1] + along * t[0]
                    short = 1 - 0.9 * t[2]
                fibre = 0.6 * grain(noise[1], a2 / 4.5, b2 / (60 * short)) + 0.5 * grain(
                    noise[1], a2 / 1.6 + 31, b2 / (22 * short)
                )
                e, h, p = q[1] * max(1 + q[7] * fibre, 0.1), q[2], q[3]
                if q[5] > 0:
                    e += q[5] * max(0.0, 1 + d / 1.2)
            else:
                rough = 1 + 0.06 * grain(noise[1], um_x / 0.9, um_y / 0.9) + 0.09 * grain(noise[1], um_x / 9, um_y / 9)
                cell = (tone[y // 2, x // 2] - 128.0) / 128.0
                rough *= 1 + 0.28 * cell
                base = 0.0
                if q[0] > 0:
                    base = q[4] * max(-1.0, 1 + 2 * d / q[0])
                e, h, p = q[1] * rough * (1 - 0.35 * base), q[2] * rough * (1 + base), q[3] * rough
                away = edge[y // 2, x // 2] * 0.05
                if q[6] > 0:
                    wall = max(0.0, 1 - away / 1.9)
                    e *= 1 - q[6] * (1 - wall)
                    h *= 1 - q[6] * (1 - wall)
                if q[5] > 0:
                    e += q[5] * max(0.0, 1 - away / 1.0)
                if d > -0.9 and q[10] == 0:
                    e += 0.05
            amounts[y, x, 0], amounts[y, x, 1], amounts[y, x, 2] = h, e, p


def _stamp_cells(amounts: np.ndarray, tissue: GrownTissue, rng, noise: np.ndarray) -> None:
    """Draw drops, the bodies of single cells, then nuclei, in place."""
    cells, types = tissue.cells, list(tables.cell_types().values())
    column = {
        name: np.array([getattr(t, name) for t in types], np.float32)[cells.kind]
        for name in ("vesicular", "nucleolus", "body", "body_eosin", "body_haematoxylin", "body_pigment", "halo")
    }
    xy = cells.xy.astype(np.float32)
    drops = cells.goblet
    # A goblet cell's drop lies above its nucleus, towards the lumen (the angle points outwards).
    away = 8.0 * np.stack([np.cos(cells.angle), np.sin(cells.angle)], axis=1).astype(np.float32)
    stamp_drops(amounts, (xy - away)[drops], cells.angle[drops].astype(np.float32))
    alone = column["body"] > 0
    turn = np.stack([np.cos(cells.angle), np.sin(cells.angle)], axis=1).astype(np.float32)
    looks = np.stack([column[n] for n in ("body", "body_eosin", "body_haematoxylin", "body_pigment", "halo")], axis=1)
    stamp_bodies(amounts, xy[alone], looks[alone], turn[alone])
    tumour = cells.kind == list(tables.cell_types()).index("tumour")
    bent = rng.standard_normal(len(xy)) * np.where(tumour, 0.22, 0.07)
    nuclei = np.stack(
        [cells.length, cells.ratio, cells.chromatin, column["vesicular"], column["nucleolus"], bent], axis=1
    ).astype(np.float32)
    drawn = cells.length > 0
    places = rng.integers(0, 1 << 30, len(xy))
    stamp_nuclei(amounts, xy[drawn], nuclei[drawn], turn[drawn], places[drawn], noise)


@njit(cache=True, nogil=True)
def _window(at, reach, size):
    return max(int(at - reach), 0), min(int(at + reach) + 2, size)


@njit(cache=True, nogil=True)
def stamp_drops(amounts, xy, angle):
    """Pale drops of mucin, 8 um wide, in place."""
    for i in range(len(xy)):
        x0, y0 = xy[i, 0] * 2, xy[i, 1] * 2
        top, bottom = _window(y0, 10, amounts.shape[0])
        left, right = _window(x0, 10, amounts.shape[1])
        for y in range(top, bottom):
            for x in range(left, right):
                away = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
                a = min(1.0, max(0.0, (8.5 - away) * 0.7))
                if a > 0:
                    amounts[y, x, 0] = amounts[y, x, 0] * (1 - a) + 0.07 * a
                    amounts[y, x, 1] = amounts[y, x, 1] * (1 - a) + 0.06 * a


@njit(cache=True, nogil=True)
def stamp_bodies(amounts, xy, looks, turn):
    """Bodies of single cells with the empty space around them, in place."""
    for i in range(len(xy)):
        radius, halo = looks[i, 0], looks[i, 4] * 2  # the diameter in um is the radius in pixels
        # The nucleus lies off the middle of its cell.
        x0, y0 = xy[i, 0] * 2 + 0.25 * radius * turn[i, 0], xy[i, 1] * 2 + 0.25 * radius * turn[i, 1]
        reach = radius + halo + 2
        top, bottom = _window(y0, reach, amounts.shape[0])
        left, right = _window(x0, reach, amounts.shape[1])
        for y in range(top, bottom):
            for x in range(left, right):
                away = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
                if halo > 0:
                    a = min(1.0, max(0.0, radius + halo - away)) * 0.9
                    for c in range(3):
                        amounts[y, x, c] *= 1 - a
                a = min(1.0, max(0.0, (radius - away) * 0.5))
                if a > 0:
                    amounts[y, x, 0] = amounts[y, x, 0] * (1 - a) + a * looks[i, 2]
                    amounts[y, x, 1] = amounts[y, x, 1] * (1 - a) + a * looks[i, 1]
                    amounts[y, x, 2] = amounts[y, x, 2] * (1 - a) + a * looks[i, 3]


@njit(cache=True, nogil=True)
def stamp_nuclei(amounts, xy, nuclei, turn, places, noise):
    """Nuclei with chromatin, membrane and nucleoli, in place; the darkest wins where they overlap."""
    for i in range(len(xy)):
        x0, y0 = xy[i, 0] * 2, xy[i, 1] * 2
        long = max(nuclei[i, 0], 1.2)  # half the length, in pixels of 0.5 um
        short = max(nuclei[i, 0] * nuclei[i, 1], 1.1)
        ink, vesicular, spot, bent = nuclei[i, 2], nuclei[i, 3], nuclei[i, 4], nuclei[i, 5]
        cos, sin = turn[i, 0], turn[i, 1]
        shift, side = places[i] & 255, (places[i] >> 8) & 255
        sx, sy = ((places[i] >> 16) & 15) / 15 - 0.5, ((places[i] >> 20) & 15) / 15 - 0.5
        top, bottom = _window(y0, long + 2, amounts.shape[0])
        left, right = _window(x0, long + 2, amounts.shape[1])
        for y in range(top, bottom):
            for x in range(left, right):
                a, b = (x - x0) * cos + (y - y0) * sin, (y - y0) * cos - (x - x0) * sin
                a /= long
                b /= short
                rho2 = a * a + b * b
                if rho2 > 1.8:
                    continue
                rho2 *= 1 + max(-0.35, min(0.35, bent * (a * a * a - 3 * a * b * b + a * a - b * b)))
                rho = max(rho2, 0.0) ** 0.5
                cover = min(1.0, max(0.0, (1 - rho) * short * 0.8 + 0.5))
                if cover <= 0:
                    continue
                coarse = noise[(x // 2 + shift) & 255, (y // 2 + side) & 255]
                clump = coarse + noise[(x + side) & 255, (y + shift) & 255]
                amount = ink * (1 - vesicular * 0.8 * (1 - rho2)) * (1 + (0.05 + 0.07 * vesicular) * clump)
                if spot > 0:
                    near = ((a - 0.7 * sx) ** 2 * long * long + (b - 0.7 * sy) ** 2 * short * short) ** 0.5
                    amount += spot * min(1.0, max(0.0, 2.4 - near))
                amount = max(amount, 0.1)
                before = amounts[y, x, 0]
                amounts[y, x, 0] = max(before * (1 - cover) + cover * amount, min(before, amount))
                amounts[y, x, 1] *= 1 - 0.55 * cover
                amounts[y, x, 2] *= 1 - 0.7 * cover
