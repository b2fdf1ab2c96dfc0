"""How far a set of sampled point clouds is from a set of real ones: tensors (n, points, 3).

A sample without a surface is a cloud of NaN: a failure. It is never skipped. It lies infinitely far
from everything, covers no reference, is told apart by the two-sample test, and ``cloud_metrics``
counts it. All is computed on the CPU in float64, in the unit of the clouds; nothing has a gradient.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist
from torch import Tensor

from fieldloom.errors import InputError, unknown
from fieldloom.progress import track

# Sizes are checked by hand, so that two sets that do not fit are an error in words.
Clouds = Float[Tensor, "_ _ _"]
Distances = Float[Tensor, "_ _"]

LARGEST = 2048  # points: an exact assignment grows with their cube, and takes up to 2 s for these
BLOCK = 2**18  # points whose trees are held at a time
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

    The one-to-one match is the optimum, not the approximation of the published GPU kernels.
    squared: match and measure by |a - b|^2 (PVD's kernel) instead of by |a - b| (PointFlow).
    Infinite where either is a failure. Raises InputError where the sets do not fit, or above 2,048
    points.
    """
    return _rowwise(a, b, "emd", squared)


def distances(a: Clouds, b: Clouds, measure: str, squared: bool) -> Float[Tensor, "_ _"]:
    """The distance of every cloud of a (row) to every one of b (column): (n, m).

    measure: ``chamfer`` or ``emd``. Of one set (``a is b``) each pair is computed once. Progress is
    shown where it takes long: at 2,048 points a pair takes 3 ms by Chamfer, 0.3 to 2 s by EMD.
    """
    _check_sets(a, b, measure)
    prepare, pair, seconds = MEASURES[measure]
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


def matching(rs: Distances) -> dict[str, float]:
    """MMD and coverage of distances (references, samples). Source: arXiv:1707.02392.

    mmd:        distance of a reference to its nearest sample, a mean over references
    mmd.sample: distance of a sample to its nearest reference, a mean over samples: one failure
                makes it infinite
    coverage:   fraction of the references that are the nearest one of a sample
    """
    _check_distances(rs)
    matched = rs[:, ~_infinitely_far(rs)].argmin(0)
    return {
        "mmd": float(rs.amin(1).mean()),
        "mmd.sample": float(rs.amin(0).mean()),
        "coverage": matched.unique().numel() / len(rs),
    }


def two_sample(rr: Distances, rs: Distances, ss: Distances, k: int = 1) -> dict[str, float]:
    """How well k nearest neighbours tell samples from references, each left out once.

    1nna:           fraction of both sets together that is told right. 0.5 is the ideal for sets of
                    one
                    size: 1 says that they lie apart, 0 that the samples are copies of the
                    references.
    1nna.reference: the same of the references alone
    1nna.sample:    of the samples alone, where a failure is always told right

    The keys name k (``3nna``). Read the halves: where the samples collapse onto one reference they
    are near 1 and 0, and their mean looks good. A reference comes before a sample at one distance.
    rr: distances (n, n) within the references, rs: (n, m), ss: (m, m); the diagonals do not count.
    Raises InputError for an even k, which may tie, and where k others do not exist.
    Source: arXiv:1610.06545; arXiv:1906.12320, section 5.2.
    """
    _check_distances(rr, rs, ss)
    n, m = rs.shape
    if rr.shape != (n, n) or ss.shape != (m, m):
        raise InputError(
            f"Distances {tuple(rr.shape)}, {tuple(rs.shape)} and {tuple(ss.shape)} are not those "
            "of one pair of sets: they need the shapes (n, n), (n, m) and (m, m)."
        )
    if k % 2 == 0 or not 1 <= k < n + m:
        raise InputError(f"k = {k}: an odd number of neighbours, 1 to {n + m - 1}.")
    if rr.clone().fill_diagonal_(0).isinf().any():
        raise InputError("References lie infinitely far apart: only samples may be failures.")
    union = torch.cat([torch.cat([rr, rs], 1), torch.cat([rs.T, ss], 1)]).fill_diagonal_(math.inf)
    sorted_distances, indices = union.sort(dim=1, stable=True)
    heard = sorted_distances[:, :k].isfinite()  # what lies infinitely far is no neighbour
    references = (heard & (indices[:, :k] < n)).sum(1)
    called = 2 * references >= heard.sum(1)
    right = torch.cat([called[:n], ~called[n:] | _infinitely_far(rs)]).double()
    name = f"{k}nna"
    return {
        name: float(right.mean()),
        f"{name}.reference": float(right[:n].mean()),
        f"{name}.sample": float(right[n:].mean()),
    }


def jsd(sample: Clouds, reference: Clouds, resolution: int = 28) -> float:
    """Jensen-Shannon divergence, in [0, 1] (log2), of where the points of two sets lie.

    A point counts at the nearest node of a grid on [-0.5, 0.5]^3, ``resolution`` nodes an axis, of
    which those in the ball of radius 0.5 are kept; the clouds of a set are pooled. It is blind to
    which points make up one cloud. Failures add no point; where all samples failed it is 1.

    References that leave the ball raise InputError: their frame is wrong, and the metric would tell
    of the grid's border. Samples may leave it by the generator's own fault: a warning names how
    many points, which count at the border as in published code. Source: arXiv:1707.02392.
    """
    if resolution < 2:
        raise InputError(f"resolution = {resolution}: the grid needs at least 2 nodes an axis.")
    lost = _check_sets(sample, reference, "chamfer")[0]
    _check_references(reference)
    if (outside := _outside(reference)) > 0:
        raise InputError(
            f"{outside:.1%} of the references' points leave the ball of radius 0.5 round the "
            "origin: scale both sets by one factor, or leave JSD out."
        )
    if lost.all():
        return 1.0
    made = sample[~lost]
    if (outside := _outside(made)) > 0:
        warnings.warn(
            f"{outside:.1%} of the samples' points leave the ball of radius 0.5: JSD counts them "
            "at its border.",
            stacklevel=2,
        )
    nodes = KDTree(_nodes(resolution))
    p, q = (_histogram(clouds, nodes) for clouds in (made, reference))
    found = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return min(max(found, 0.0), 1.0)


def normalize_clouds(clouds: Clouds, how: str) -> Float[Tensor, "_ _ _"]:
    """Clouds in the frame that a protocol judges them in, in float64; a failure stays one.

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
    # each alone: sums are rounded by how tensors lie in memory, and equal clouds must stay equal
    return torch.stack([_normalize(cloud.contiguous(), how) for cloud in clouds])


def _normalize(cloud: Tensor, how: str) -> Tensor:
    if how == "cloud":
        centre, size = cloud.mean(0), cloud.std()
    else:
        low, high = cloud.amin(0), cloud.amax(0)
        centre, size = (low + high) / 2, (high - low).amax()
    return (cloud - centre) / torch.where(size == 0, 1.0, size)


def find_failures(clouds: Clouds) -> Bool[Tensor, " _"]:
    """Which clouds are failures, that is NaN throughout: (n,).

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


@dataclass(frozen=True)
class CloudProtocol:
    """How a published table judged clouds. Metrics of two protocols do not compare.

    points:        of every cloud
    normalisation: as ``normalize_clouds`` names it
    measures:      (``chamfer`` or ``emd``, whether squared)
    metrics:       what is reported, of ``METRICS``
    source:        where it was read off, and what of it is left out
    """

    points: int
    normalisation: str
    measures: tuple[tuple[str, bool], ...]
    metrics: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS:
            raise unknown("normalisation", self.normalisation, NORMALISATIONS)
        for measure, _ in self.measures:
            if measure not in MEASURES:
                raise unknown("measure", measure, MEASURES)
        for metric in self.metrics:
            if metric not in METRICS:
                raise unknown("metric", metric, METRICS)


def cloud_metrics(sample: Clouds, reference: Clouds, protocol: CloudProtocol) -> dict[str, float]:
    """Every metric of a protocol by name: ``chamfer.mmd``, ``emd.1nna.sample``, ``jsd``.

    ``failures`` counts the samples that are failures. Raises InputError where the clouds do not
    have the protocol's number of points, where a reference is a failure, and as ``jsd`` does.
    """
    _check_references(reference)
    lost = find_failures(sample)
    for clouds in (sample, reference):
        if clouds.shape[1] != protocol.points:
            raise InputError(
                f"The clouds hold {clouds.shape[1]} points: the protocol judges {protocol.points}, "
                "and another number gives metrics that do not compare."
            )
    sample, reference = (normalize_clouds(c, protocol.normalisation) for c in (sample, reference))
    found = {"failures": float(lost.sum())}
    if "jsd" in protocol.metrics:  # the first: it is quick, and refuses a wrong frame
        found["jsd"] = jsd(sample, reference)
    for measure, squared in protocol.measures:
        rs = distances(reference, sample, measure, squared)
        values = matching(rs)
        if not set(NEIGHBOURS).isdisjoint(protocol.metrics):
            rr, ss = (distances(c, c, measure, squared) for c in (reference, sample))
            values |= two_sample(rr, rs, ss)
        found |= {f"{measure}.{f}": v for f, v in values.items() if f in protocol.metrics}
    return found


def _rowwise(a: Tensor, b: Tensor, measure: str, squared: bool) -> Tensor:
    if len(a) != len(b):
        raise InputError(f"{len(a)} and {len(b)} clouds: row by row both sets need as many.")
    _check_sets(a, b, measure)
    prepare, pair, _ = MEASURES[measure]
    rows = zip(_prepare(a, prepare), _prepare(b, prepare), strict=True)
    found = [math.inf if x is None or y is None else pair(x, y, squared) for x, y in rows]
    return torch.tensor(found, dtype=torch.float64)


def _check_sets(a: Tensor, b: Tensor, measure: str) -> tuple[Tensor, Tensor]:
    """Which clouds of either set are failures."""
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    lost = find_failures(a), find_failures(b)
    if measure == "emd" and a.shape[1] != b.shape[1]:
        raise InputError(
            f"Clouds of {a.shape[1]} and {b.shape[1]} points: EMD needs as many in both."
        )
    if measure == "emd" and a.shape[1] > LARGEST:
        raise InputError(
            f"Clouds of {a.shape[1]} points: EMD takes at most {LARGEST}, as its time grows "
            "with their cube."
        )
    return lost


def _check_references(reference: Tensor) -> None:
    lost = int(find_failures(reference).sum())
    if lost:
        raise InputError(
            f"{lost} of {len(reference)} reference clouds are NaN: only samples may be failures."
        )


def _check_distances(*matrices: Tensor) -> None:
    for matrix in matrices:
        if not matrix.numel() or matrix.isnan().any():
            raise InputError("Distances are empty or NaN: take those of ``distances``.")


def _infinitely_far(rs: Tensor) -> Tensor:
    """The samples that lie infinitely far from every reference."""
    return rs.isinf().all(0)


def _prepare(clouds: Tensor, prepare: Callable[[ndarray], Any]) -> list[Any]:
    """Each cloud as its measure takes it; None for a failure."""
    arrays = clouds.detach().cpu().double().numpy()
    return [None if np.isnan(array[0, 0]) else prepare(array) for array in arrays]


def _pairs(
    a: Tensor, b: Tensor, prepare: Callable[[ndarray], Any]
) -> Iterator[tuple[int, int, Any, Any]]:
    """Every pair, once where b is a: indices and prepared clouds, of one block at a time."""
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
    cost = cdist(a, b, "sqeuclidean" if squared else "euclidean")
    # A sum that is exact in any order: the distance is the same from a to b and from b to a.
    return math.fsum(cost[linear_sum_assignment(cost)]) / len(a)


def _nodes(resolution: int) -> ndarray:
    """The grid's nodes in the ball, (m, 3), by whole numbers: none on the border is lost."""
    last = resolution - 1
    line = np.arange(-last, last + 1, 2)
    steps = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    return steps[(steps**2).sum(1) <= last**2] / (2 * last)


def _outside(clouds: Tensor) -> float:
    """The fraction of the points out of the ball, but for rounding in float32."""
    return float((clouds.detach().cpu().double().norm(dim=2) > 0.5 * (1 + 1e-6)).double().mean())


def _histogram(clouds: Tensor, nodes: KDTree) -> ndarray:
    points = clouds.detach().cpu().double().flatten(0, 1).numpy()
    counts = np.bincount(nodes.query(points)[1], minlength=nodes.n)
    return counts / len(points)


def _entropy(fractions: ndarray) -> float:
    """In bits."""
    fractions = fractions[fractions > 0]
    return float(-(fractions * np.log2(fractions)).sum())


# name -> how a cloud is prepared, the distance of two, the seconds that takes for so many points
MEASURES: dict[str, tuple[Callable[..., Any], Callable[..., float], Callable[[int], float]]] = {
    "chamfer": (_tree, _chamfer, lambda points: 1.5e-6 * points),
    "emd": (_array, _emd, lambda points: 2.3e-10 * points**3),
}
NORMALISATIONS = ("none", "cloud", "box")
NEIGHBOURS = ("1nna", "1nna.reference", "1nna.sample")
METRICS = ("mmd", "mmd.sample", "coverage", *NEIGHBOURS, "jsd")

PROTOCOLS = {
    "mnif": CloudProtocol(
        2048,
        "none",
        (("chamfer", True),),
        ("mmd", "coverage"),
        "arXiv:2310.19464 and its code: as many samples as test shapes, in the frame of the fields",
    ),
    "hyperdiffusion": CloudProtocol(
        2048,
        "cloud",
        (("chamfer", True),),
        ("mmd", "coverage", *NEIGHBOURS),
        "arXiv:2303.17015 and its test code, without its FPD; that code skips failures",
    ),
    "pointflow": CloudProtocol(
        2048,
        "none",
        (("chamfer", True), ("emd", False)),
        ("mmd", "coverage", *NEIGHBOURS, "jsd"),
        "arXiv:1906.12320: the normalisation of the data set is undone first; its EMD approximates",
    ),
}
