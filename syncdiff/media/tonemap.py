"""HDR (BT.2020 with PQ or HLG) -> SDR (BT.709), as a table for ffmpeg's lut3d filter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

SIDE = 33  # points of the table along each axis
SDR_WHITE = 203.0  # cd/m2: reference white of ITU-R BT.2408
PEAK = 1000.0  # cd/m2: assumed brightest highlight
# BT.2020 -> BT.709 primaries, linear light: ITU-R BT.2087, the inverse of its table 2
TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])


def pq_light(signal: np.ndarray) -> np.ndarray:
    """[...,3] PQ signal 0..1 -> cd/m2 (SMPTE ST 2084, eq. 4.1)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    p = np.power(np.clip(signal, 0, 1), 1 / m2)
    return 10_000 * np.power(np.maximum(p - c1, 0) / (c2 - c3 * p), 1 / m1)


def hlg_light(signal: np.ndarray) -> np.ndarray:
    """[...,3] HLG signal 0..1 -> cd/m2 on a 1000 cd/m2 display (ITU-R BT.2100, table 5: inverse OETF, then OOTF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.clip(signal, 0, 1)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luma = np.maximum((scene @ LUMA_2020)[..., None], 1e-9)
    return PEAK * luma**0.2 * scene


TRANSFERS: dict[int, Callable[[np.ndarray], np.ndarray]] = {16: pq_light, 18: hlg_light}  # by H.273 code point


def tone_map(light: np.ndarray) -> np.ndarray:
    """[...,3] BT.2020 light in cd/m2 -> [...,3] BT.709 signal 0..1.

    Up to 0.75 of reference white nothing changes; highlights above, up to PEAK, are compressed into the rest. The curve
    is applied to the largest component and scales all three, so hues stay."""
    linear = light / SDR_WHITE
    top = np.maximum(linear.max(axis=-1, keepdims=True), 1e-9)
    knee, most = 0.75, PEAK / SDR_WHITE
    over, room = (np.clip(top, knee, most) - knee), 1 - knee
    span = (most - knee) / room
    rolled = knee + room * (over / room) * (1 + over / room / span**2) / (1 + over / room)  # Reinhard 2002, eq. 4
    linear = linear * np.where(top > knee, rolled / top, 1.0)
    linear = np.clip(linear @ TO_709.T, 0, 1)
    return np.power(linear, 1 / 2.4)  # inverse of the display's EOTF, BT.1886


def write_cube(path: str | Path, to_light: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write the map from HDR signal to SDR signal as a .cube table. to_light: one of TRANSFERS."""
    axis = np.linspace(0, 1, SIDE)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # red runs fastest in a .cube file
    table = tone_map(to_light(np.stack([red, green, blue], axis=-1))).reshape(-1, 3)
    rows = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in table)
    Path(path).write_text(f"LUT_3D_SIZE {SIDE}\n{rows}\n", encoding="ascii")
