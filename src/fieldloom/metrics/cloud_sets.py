"""Distances between a set of sampled point clouds and a set of real ones.

A sample that is a failure (``cloud_distances``) lies infinitely far from everything, covers no
reference, and is always recognised by the two-sample test.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from fieldloom.errors import InputError
from fieldloom.metrics.cloud_distances import Clouds, check_complete, find_failures

if TYPE_CHECKING:  # scipy is imported by what needs it: it takes half as long as torch
    from scipy.spatial import KDTree

# Sizes are checked by hand, so that two sets that do not fit are an error in words.
Distances = Float[Tensor, "_ _"]


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
    """Leave-one-out accuracy of a k-nearest-neighbour classifier of samples and references.

    1nna:           accuracy on both sets together. 0.5 is ideal for sets of equal size: 1 means
                    that the sets are separate, 0 that the samples are copies of the references.
    1nna.reference: accuracy on the references
    1nna.sample:    accuracy on the samples, where a failure always counts as recognised

    The keys contain k (``3nna``). Look at both parts: where the samples collapse onto one reference
    they are near 1 and 0, and their mean looks good. At equal distances references come first.
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
    near = sorted_distances[:, :k].isfinite()  # failures are nobody's neighbours
    references = (near & (indices[:, :k] < n)).sum(1)
    as_reference = 2 * references >= near.sum(1)
    right = torch.cat([as_reference[:n], ~as_reference[n:] | _infinitely_far(rs)]).double()
    name = f"{k}nna"
    return {
        name: float(right.mean()),
        f"{name}.reference": float(right[:n].mean()),
        f"{name}.sample": float(right[n:].mean()),
    }


def jsd(sample: Clouds, reference: Clouds, resolution: int = 28) -> float:
    """Jensen-Shannon divergence, in [0, 1] (log2), of the point densities of two sets.

    Each point counts at the nearest node of a grid on [-0.5, 0.5]^3, with ``resolution`` nodes
    along an axis, restricted to the ball of radius 0.5. The clouds of a set are pooled, so that it
    does not matter which points form one cloud. Failures add no points; if all samples failed it is
    1.

    References outside the ball raise InputError: their frame is wrong, and the metric would
    describe the border of the grid. Samples may be outside by the generator's own fault: their
    points count at the border as in published code, and a warning gives their fraction.
    Source: arXiv:1707.02392.
    """
    from scipy.spatial import KDTree

    if resolution < 2:
        raise InputError(f"resolution = {resolution}: the grid needs at least 2 nodes an axis.")
    lost = find_failures(sample)
    check_complete(reference)
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


def _check_distances(*matrices: Tensor) -> None:
    for matrix in matrices:
        if not matrix.numel() or matrix.isnan().any():
            raise InputError("Distances are empty or NaN: take those of ``distances``.")


def _infinitely_far(rs: Tensor) -> Tensor:
    """The samples that lie infinitely far from every reference."""
    return rs.isinf().all(0)


def _nodes(resolution: int) -> ndarray:
    """The grid's nodes in the ball, (m, 3); integer arithmetic keeps those on the border."""
    last = resolution - 1
    line = np.arange(-last, last + 1, 2)
    steps = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    return steps[(steps**2).sum(1) <= last**2] / (2 * last)


def _outside(clouds: Tensor) -> float:
    """The fraction of the points outside the ball, with a tolerance for float32."""
    return float((clouds.detach().cpu().double().norm(dim=2) > 0.5 * (1 + 1e-6)).double().mean())


def _histogram(clouds: Tensor, nodes: KDTree) -> ndarray:
    points = clouds.detach().cpu().double().flatten(0, 1).numpy()
    counts = np.bincount(nodes.query(points)[1], minlength=nodes.n)
    return counts / len(points)


def _entropy(fractions: ndarray) -> float:
    """The entropy of a distribution, in bits."""
    fractions = fractions[fractions > 0]
    return float(-(fractions * np.log2(fractions)).sum())
