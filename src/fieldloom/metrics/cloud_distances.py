"""Distances between point clouds: tensors (n, points, 3).

The cloud of a shape without a surface is NaN throughout: a failure. Failures are never skipped;
they lie infinitely far from everything. All is computed on the CPU in float64, in the unit of the
clouds, and without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from fieldloom.errors import InputError, unknown
from fieldloom.progress import track

if TYPE_CHECKING:  # scipy is imported by what needs it: it takes half as long as torch
    from scipy.spatial import KDTree

# Sizes are checked by hand, so that two sets that do not fit are an error in words.
Clouds = Float[Tensor, "_ _ _"]

LARGEST = 2048  # points: an exact assignment grows with their cube, and takes up to 2 s for these
BLOCK = 2**18  # points whose trees are in memory at a time
LEAF = 32  # points of a tree's leaf: the fastest of 10, 16, 32 and 64 on surfaces and on boxes
LONG = 10.0  # seconds of work from which progress is shown


def chamfer(a: Clouds, b: Clouds, squared: bool = True) -> Float[Tensor, " n"]:
    """The Chamfer distance of the i-th cloud of a and of b: mean_a min_b + mean_b min_a.

    squared: of |a - b|^2, as in all published numbers; otherwise of |a - b|.
    Infinite where either is a failure. Raises InputError where the sets do not fit.
    """
    return _rowwise(a, b, "chamfer", squared)


def emd(a: Clouds, b: Clouds, squared: bool = False) -> Float[Tensor, " n"]:
    """The earth mover's distance of the i-th cloud of a and of b: the mean over matched points.

    The one-to-one matching is optimal, unlike the approximation of the published GPU kernels.
    squared: match and measure by |a - b|^2 (PVD's kernel) instead of by |a - b| (PointFlow).
    Infinite where either is a failure. Raises InputError where the sets do not fit, or above 2,048
    points.
    """
    return _rowwise(a, b, "emd", squared)


def distances(a: Clouds, b: Clouds, measure: str, squared: bool) -> Float[Tensor, "_ _"]:
    """The distance of every cloud of a (row) to every one of b (column): (n, m).

    measure: ``chamfer`` or ``emd``. Within one set (``a is b``) each pair is computed once. A
    progress bar is shown for long work: at 2,048 points a pair takes 3 ms by Chamfer, 0.3 to 2 s by
    EMD.
    """
    _check_sets(a, b, measure)
    prepare, pair, seconds = DISTANCES[measure]
    same = a is b
    found = torch.full((len(a), len(b)), math.inf, dtype=torch.float64)
    pairs: Iterator[tuple[int, int, Any, Any]] = _pairs(a, b, prepare)
    count = len(a) * (len(a) + 1) // 2 if same else len(a) * len(b)
    if count * seconds(max(a.shape[1], b.shape[1])) > LONG:
        pairs = track(pairs, f"{measure} distances", count, "pairs")
    for i, j, x, y in pairs:
        if x is not None and y is not None:
            found[i, j] = pair(x, y, squared)
        if same:
            found[j, i] = found[i, j]
    return found


def normalize_clouds(clouds: Clouds, how: str) -> Float[Tensor, "_ _ _"]:
    """Clouds in the frame that a protocol compares them in, in float64; a failure stays one.

    none:  as they are
    cloud: each less its mean, over one unbiased deviation: of all its 3 * points coordinates as
           they come, not centred axis by axis first (HyperDiffusion's test, arXiv:2303.17015)
    box:   the bounding box of each is centred at 0, its longest side is 1

    A cloud without extent is only centred.
    """
    if how not in NORMALISATIONS:
        raise unknown("normalisation", how, NORMALISATIONS)
    find_failures(clouds)
    clouds = clouds.detach().cpu().double()
    if how == "none":
        return clouds
    # each cloud alone: rounding depends on the memory layout, and equal clouds must stay equal
    return torch.stack([_normalize(cloud.contiguous(), how) for cloud in clouds])


def _normalize(cloud: Tensor, how: str) -> Tensor:
    if how == "cloud":
        centre, size = cloud.mean(0), cloud.std()
    else:
        low, high = cloud.amin(0), cloud.amax(0)
        centre, size = (low + high) / 2, (high - low).amax()
    return (cloud - centre) / torch.where(size == 0, 1.0, size)


def find_failures(clouds: Clouds) -> Bool[Tensor, " _"]:
    """Which clouds are failures, NaN throughout: (n,).

    Raises InputError for clouds that are not (n, points, 3), for an empty set, and for a cloud that
    is neither finite nor a failure.
    """
    if clouds.shape[-1] != 3 or not clouds.numel():
        raise InputError(
            f"Clouds {tuple(clouds.shape)}: the shape is (n, points, 3), with n and points above 0."
        )
    lost = clouds.isnan().flatten(1).all(1).cpu()
    broken = int((~clouds.isfinite().flatten(1).all(1).cpu() & ~lost).sum())
    if broken:
        raise InputError(
            f"{broken} of {len(clouds)} clouds hold NaN or infinite points: a cloud is finite, or "
            "NaN throughout where there is no surface."
        )
    return lost


def check_complete(reference: Clouds) -> None:
    """Raise InputError where references are failures."""
    lost = int(find_failures(reference).sum())
    if lost:
        raise InputError(
            f"{lost} of {len(reference)} reference clouds are NaN: only samples may be failures."
        )


def _rowwise(a: Tensor, b: Tensor, measure: str, squared: bool) -> Tensor:
    if len(a) != len(b):
        raise InputError(f"{len(a)} and {len(b)} clouds: row by row both sets need as many.")
    _check_sets(a, b, measure)
    prepare, pair, _ = DISTANCES[measure]
    rows = zip(_prepare(a, prepare), _prepare(b, prepare), strict=True)
    found = [math.inf if x is None or y is None else pair(x, y, squared) for x, y in rows]
    return torch.tensor(found, dtype=torch.float64)


def _check_sets(a: Tensor, b: Tensor, measure: str) -> None:
    """Raise InputError where a measure cannot compare clouds of these sets."""
    if measure not in DISTANCES:
        raise unknown("measure", measure, DISTANCES)
    find_failures(a)
    find_failures(b)
    if measure == "emd" and a.shape[1] != b.shape[1]:
        raise InputError(
            f"Clouds of {a.shape[1]} and {b.shape[1]} points: EMD needs as many in both."
        )
    if measure == "emd" and a.shape[1] > LARGEST:
        raise InputError(
            f"Clouds of {a.shape[1]} points: EMD takes at most {LARGEST}, as its time grows "
            "with their cube."
        )


def _prepare(clouds: Tensor, prepare: Callable[[ndarray], Any]) -> list[Any]:
    """Each cloud prepared for its measure; None for a failure."""
    arrays = clouds.detach().cpu().double().numpy()
    return [None if np.isnan(array[0, 0]) else prepare(array) for array in arrays]


def _pairs(
    a: Tensor, b: Tensor, prepare: Callable[[ndarray], Any]
) -> Iterator[tuple[int, int, Any, Any]]:
    """Every pair (once where b is a): two indices and two prepared clouds, block by block."""
    same = a is b
    step = max(1, BLOCK // max(a.shape[1], b.shape[1]))
    for i in range(0, len(a), step):
        rows = _prepare(a[i : i + step], prepare)
        for j in range(i if same else 0, len(b), step):
            columns = rows if same and i == j else _prepare(b[j : j + step], prepare)
            for (p, x), (q, y) in product(enumerate(rows, i), enumerate(columns, j)):
                if not same or p <= q:
                    yield p, q, x, y


def _tree(cloud: ndarray) -> KDTree:
    from scipy.spatial import KDTree

    return KDTree(cloud, leafsize=LEAF)


def _array(cloud: ndarray) -> ndarray:
    return cloud


def _chamfer(a: KDTree, b: KDTree, squared: bool) -> float:
    # Trees are exact, and on one core 20 times faster than all distances: 3 ms, not 60 ms.
    there, back = b.query(a.data)[0], a.query(b.data)[0]
    if squared:
        there, back = there**2, back**2
    return float(there.mean() + back.mean())


def _emd(a: ndarray, b: ndarray, squared: bool) -> float:
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(a, b, "sqeuclidean" if squared else "euclidean")
    # fsum is exact in any order: the distance from a to b equals that from b to a.
    return math.fsum(cost[linear_sum_assignment(cost)]) / len(a)


# name -> preparation of a cloud, distance of two clouds, seconds that it takes for their points
DISTANCES: dict[str, tuple[Callable[..., Any], Callable[..., float], Callable[[int], float]]] = {
    "chamfer": (_tree, _chamfer, lambda points: 1.5e-6 * points),
    "emd": (_array, _emd, lambda points: 2.3e-10 * points**3),
}
NORMALISATIONS = ("none", "cloud", "box")
