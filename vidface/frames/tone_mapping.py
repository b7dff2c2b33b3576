"""HLG and PQ pictures → SDR ones, as ITU-R BT.2390 maps them.

Light is what a display of 1000 cd/m² shows (HLG's nominal one; of PQ the file's own peak where it
states one). BT.2390's roll-off (5.4.1) takes its luminance to 203 cd/m², BT.2408's reference white,
which becomes SDR's; colours keep their ratios, BT.2020's become BT.709's, and the display's gamma
is 2.4 (BT.1886). Below about 86 cd/m² a face has the light that it had.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PQ, HLG = 16, 18  # transfer characteristics, by their numbers in ITU-T H.273
SDR_WHITE_NITS = 203.0
DEFAULT_PEAK_NITS = 1000.0
MAX_NITS = 10_000.0  # PQ's signal 1

_LUMINANCE = np.array([[0.2627, 0.6780, 0.0593]], np.float32)  # of BT.2020's primaries
_TO_BT709 = np.array(  # linear light; BT.2087, annex 2, with more digits
    [
        [1.660491, -0.587641, -0.072850],
        [-0.124550, 1.132900, -0.008349],
        [-0.018151, -0.100579, 1.118730],
    ],
    np.float32,
)
_ROWS_AT_ONCE = 64  # floats of a whole 8K picture would take half a gigabyte
_VALUES = 65536


def map_tones(image: NDArray[np.uint16], transfer: int, peak_nits: float) -> NDArray[np.uint8]:
    """(height, width, 3) R'G'B' of BT.2020 in 16 bits → SDR RGB of BT.709, 8 bits.

    transfer: PQ or HLG. peak_nits: what PQ's brightest value is, in cd/m²; HLG's is 1000.
    """
    import cv2

    peak_nits = min(max(peak_nits, SDR_WHITE_NITS), MAX_NITS) if transfer == PQ else 1000.0
    light_of_signal, gain_of_root, signal_of_root = _tables(transfer, round(peak_nits))
    mapped = np.empty(image.shape, np.uint8)
    for top in range(0, len(image), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        light = np.take(light_of_signal, image[rows])  # (rows, width, 3) float32 in [0, 1]
        # Both kinds scale a colour by what its luminance alone says; roots give dark ones room.
        root = cv2.sqrt(cv2.sqrt(cv2.transform(light, _LUMINANCE)))
        light *= np.take(gain_of_root, _quantise(root))[:, :, None]
        shown = np.maximum(cv2.transform(light, _TO_BT709), 0)
        mapped[rows] = np.take(signal_of_root, _quantise(cv2.sqrt(shown)))
    return mapped


def _quantise(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """[0, 1] → [0, 65535]; beyond 1 is 65535."""
    return (np.minimum(values, 1) * (_VALUES - 1) + 0.5).astype(np.uint16)


@lru_cache(maxsize=8)
def _tables(
    transfer: int, peak_nits: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Each of 65,536 values: a signal's light; a luminance's gain, by its 4th root; SDR by root."""
    steps = np.linspace(0, 1, _VALUES)
    luminance = steps**4
    if transfer == PQ:
        light, shown_nits = pq_to_nits(steps) / MAX_NITS, luminance * MAX_NITS
    else:  # BT.2100's display: 1000 cd/m², a system gamma of 1.2
        light, shown_nits = hlg_to_scene_light(steps), luminance**1.2 * DEFAULT_PEAK_NITS
    sdr = roll_off(shown_nits, peak_nits) / SDR_WHITE_NITS
    gain = np.divide(sdr, luminance, out=np.zeros_like(sdr), where=luminance > 0)
    signal = np.rint(255 * steps ** (2 / 2.4)).astype(np.uint8)
    return light.astype(np.float32), gain.astype(np.float32), signal


def pq_to_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """PQ's signal in [0, 1] → cd/m² (SMPTE ST 2084, BT.2100 table 4).

    >>> pq_to_nits(np.array([0.0, 0.5081, 1.0])).round(1).tolist()
    [0.0, 100.0, 10000.0]
    """
    root = signal ** (32 / 2523)
    light = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return MAX_NITS * light ** (16384 / 2610)


def nits_to_pq(nits: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The inverse of `pq_to_nits`."""
    power = (np.asarray(nits) / MAX_NITS) ** (2610 / 16384)
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32)


def hlg_to_scene_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """HLG's signal in [0, 1] → the scene's light in [0, 1] (ARIB STD-B67, BT.2100 table 5).

    >>> hlg_to_scene_light(np.array([0.0, 0.5, 1.0])).round(4).tolist()
    [0.0, 0.0833, 1.0]
    """
    bright = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(signal <= 0.5, signal**2 / 3, bright)


def roll_off(nits: NDArray[np.float64], peak_nits: float) -> NDArray[np.float64]:
    """cd/m² of a display of `peak_nits` → of one of 203: BT.2390-11, 5.4.1, with black at 0.

    >>> roll_off(np.array([0.0, 50.0, 203.0, 1000.0, 4000.0]), 1000.0).round(1).tolist()
    [0.0, 50.0, 159.0, 203.0, 203.0]
    """
    peak = nits_to_pq(peak_nits)
    brightest = nits_to_pq(SDR_WHITE_NITS) / peak
    knee = 1.5 * brightest - 0.5
    signal = np.minimum(nits_to_pq(nits) / peak, 1)
    t = np.maximum(signal - knee, 0) / max(1 - knee, 1e-9)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee)
    spline += (3 * t**2 - 2 * t**3) * brightest
    return pq_to_nits(np.where(signal < knee, signal, spline) * peak)
