"""Distances between a set of samples and a set of data: features (n, d), in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldloom.errors import InputError

# Sizes are checked by hand, so that two sets that do not fit are an error in words.
Features = Float[Tensor, "_ _"]

BLOCK = 2**22  # float64 numbers of one block of pairs: 32 MiB


class Moments(NamedTuple):
    """The mean (d,) of features, and R (k, d) with R^T R their unbiased covariance, in float64.

    size: how many features there are.
    """

    size: int
    mean: Tensor
    root: Tensor


def frechet(real: Features | Moments, fake: Features | Moments) -> float:
    """Squared Frechet distance of the two Gaussians with the sets' means and unbiased covariances.

    |m_r - m_f|^2 + Tr C_r + Tr C_f - 2 Tr (C_r^(1/2) C_f C_r^(1/2))^(1/2)

    With C = R^T R the last trace is the nuclear norm of R_r R_f^T. This avoids covariances and
    roots of small eigenvalues, and is exact with fewer samples than features, too.
    Source: arXiv:1706.08500, eq. 6.
    """
    (count_r, mean_r, root_r), (count_f, mean_f, root_f) = _moments_of(real), _moments_of(fake)
    _check_sizes((count_r, len(mean_r)), (count_f, len(mean_f)), least=2)
    trace = torch.linalg.svdvals(root_r @ root_f.T).sum()
    spread = root_r.square().sum() + root_f.square().sum()
    return max(float((mean_r - mean_f).square().sum() + spread - 2 * trace), 0.0)


def kid(real: Features, fake: Features) -> float:
    """Unbiased squared MMD of the kernel (x.y / d + 1)^3, all samples in one block.

    It may fall below 0 where the sets agree. Source: arXiv:1801.01401.
    """
    _check(real, fake, least=2)
    n, m = len(real), len(fake)
    within = (_kernel_sum(real, real) - _kernel_trace(real)) / (n * (n - 1))
    within += (_kernel_sum(fake, fake) - _kernel_trace(fake)) / (m * (m - 1))
    return within - 2 * _kernel_sum(real, fake) / (n * m)


def kid_error(real: Features, fake: Features) -> float:
    """The standard error of ``kid``, by leaving out each of the samples and of the data in turn.

    That is the jackknife of a statistic of two sets: of each, (n - 1) / n times the sum of squared
    deviations from the mean. Of two sets of one distribution it is somewhat too large. The
    published error is the deviation of blocks of 1,000 samples, which small sets do not have.
    Source: Efron and Stein, 1981.
    """
    _check(real, fake, least=3)
    n, m = len(real), len(fake)
    within_r = _kernel_row_sums(real, real) - _kernel_diagonal(real)
    within_f = _kernel_row_sums(fake, fake) - _kernel_diagonal(fake)
    across_r, across_f = _kernel_row_sums(real, fake), _kernel_row_sums(fake, real)
    across = across_r.sum()
    # kid without one, but for what is the same whichever is left out
    without_r = (within_r.sum() - 2 * within_r) / ((n - 1) * (n - 2))
    without_r -= 2 * (across - across_r) / ((n - 1) * m)
    without_f = (within_f.sum() - 2 * within_f) / ((m - 1) * (m - 2))
    without_f -= 2 * (across - across_f) / (n * (m - 1))
    variances = [(len(x) - 1) * x.var(correction=0).item() for x in (without_r, without_f)]
    return math.sqrt(sum(variances))


def prdc(real: Features, fake: Features, k: int = 3) -> dict[str, float]:
    """Precision, recall, f1, density and coverage, by balls up to each point's k-th neighbour.

    precision: fraction of the samples inside a ball of the data
    recall:    fraction of the data inside a ball of the samples
    density:   mean number of balls of the data that contain a sample, divided by k; may exceed 1
    coverage:  fraction of the data's balls that contain a sample

    Balls are open ("<"), and a point is not its own neighbour, as in the PRDC code of mNIF.
    Source: arXiv:1904.06991, eqs. 1 and 2 (precision, recall); arXiv:2002.09797 (the others).
    """
    if k < 1:
        raise InputError(f"k = {k}: a ball holds at least 1 neighbour.")
    _check(real, fake, least=k + 1)
    radius_r, radius_f = _radii(real, k), _radii(fake, k)
    found = torch.zeros_like(radius_r, dtype=torch.bool)  # data inside a ball of the samples
    covered = torch.zeros_like(found)  # data whose ball holds a sample
    precise = incidences = 0
    for start, squared in _squared_distances(fake, real):
        held = squared < radius_r
        precise += int(held.any(1).sum())
        incidences += int(held.sum())
        covered |= held.any(0)
        found |= (squared < radius_f[start : start + len(squared), None]).any(0)
    precision, recall = precise / len(fake), int(found.sum()) / len(real)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / ((precision + recall) or 1.0),
        "density": incidences / (k * len(fake)),
        "coverage": int(covered.sum()) / len(real),
    }


def nearest(
    queries: Features, references: Features, exclude_self: bool = False
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """The Euclidean distance to, and the index of, each query's nearest reference.

    ``exclude_self``: the queries are the references, and none is its own neighbour.
    """
    _check(references, queries, least=2 if exclude_self else 1)
    if exclude_self and len(queries) != len(references):
        raise InputError(
            f"{len(queries)} queries are not the {len(references)} references: "
            "'exclude_self' needs one set."
        )
    indices = []
    for start, squared in _squared_distances(queries, references):
        if exclude_self:
            squared.diagonal(start).fill_(math.inf)
        indices.append(squared.argmin(1))
    index = torch.cat(indices)
    # The distances of these pairs are computed again by differences, which do not cancel.
    step = max(1, BLOCK // queries.shape[1])
    pairs = zip(queries.split(step), index.split(step), strict=True)
    distances = [(q.double() - references[i].double()).norm(dim=1) for q, i in pairs]
    return torch.cat(distances), index


def _check_sizes(real: tuple[int, int], fake: tuple[int, int], least: int) -> None:
    """Raise InputError for sets of these shapes (n, d) that cannot be compared."""
    if real[1] != fake[1]:
        raise InputError(
            f"The features are {real[1]} and {fake[1]} wide: both sets need the same detector."
        )
    if min(real[0], fake[0]) < least:
        raise InputError(
            f"The sets hold {real[0]} and {fake[0]} samples: each needs at least {least}."
        )


def _check(real: Tensor, fake: Tensor, least: int) -> None:
    _check_sizes((len(real), real.shape[1]), (len(fake), fake.shape[1]), least)
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise InputError("The features hold NaN or infinite values: look at the samples.")


def moments(features: Features) -> Moments:
    """The moments of features. Raises InputError where some are no finite numbers."""
    _check(features, features, least=1)
    mean = features.mean(0, dtype=torch.float64)
    root = (features.double() - mean) / math.sqrt(max(1, len(features) - 1))
    return Moments(len(features), mean, _triangle(root))


def join_moments(a: Moments, b: Moments) -> Moments:
    """The moments of two sets together, without squares, which would halve the digits.

    With scatters S = (n - 1) R^T R of the parts that of the whole is
    S_a + S_b + n_a n_b / n (m_b - m_a)(m_b - m_a)^T (Chan, Golub and LeVeque, 1983, eq. 2.1).
    """
    count, gap = a.size + b.size, b.mean - a.mean
    rows = [math.sqrt(x.size - 1) * x.root for x in (a, b)]
    between = math.sqrt(a.size * b.size / count) * gap.unsqueeze(0)
    root = torch.cat([*rows, between]) / math.sqrt(count - 1)
    return Moments(count, a.mean + b.size / count * gap, _triangle(root))


def _triangle(root: Tensor) -> Tensor:
    """R of at most d rows with the same R^T R."""
    return torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root


def _moments_of(features: Features | Moments) -> Moments:
    return features if isinstance(features, Moments) else moments(features)


def _radii(features: Tensor, k: int) -> Tensor:
    """The squared distance from each point to its k-th nearest other point: (n,)."""
    radii = []
    for start, squared in _squared_distances(features, features):
        squared.diagonal(start).fill_(math.inf)
        radii.append(squared.topk(k, largest=False).values[:, -1])
    # slightly smaller, so that equal distances do not count as nearer through rounding
    return torch.cat(radii) * (1 - 1e-9)


def _squared_distances(queries: Tensor, references: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Blocks of queries: first row, squared distances (rows, m); exactly 0 for equal points."""
    m, d = references.shape
    rows = max(1, BLOCK // max(m, d))
    step = max(1, BLOCK // max(rows, d))
    centre = references.mean(
        0, dtype=torch.float64
    )  # centred, since products cancel far from the origin
    for start in range(0, len(queries), rows):
        a = queries[start : start + rows].double() - centre
        squared = a.new_empty(len(a), m)
        for j in range(0, m, step):
            b = references[j : j + step].double() - centre
            scale = a.square().sum(1, keepdim=True) + b.square().sum(1)
            part = torch.addmm(scale, a, b.T, alpha=-2)
            squared[:, j : j + step] = part.masked_fill_(part < 1e-13 * scale, 0)  # rounding
        yield start, squared


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    d, y = x.shape[1], y.double()
    rows = max(1, BLOCK // max(len(y), d))
    return sum(float((a.double() @ y.T / d + 1).pow(3).sum()) for a in x.split(rows))


def _kernel_row_sums(x: Tensor, y: Tensor) -> Tensor:
    d, y = x.shape[1], y.double()
    rows = max(1, BLOCK // max(len(y), d))
    return torch.cat([(a.double() @ y.T / d + 1).pow(3).sum(1) for a in x.split(rows)])


def _kernel_trace(x: Tensor) -> float:
    return float(_kernel_diagonal(x).sum())


def _kernel_diagonal(x: Tensor) -> Tensor:
    return (x.double().square().mean(1) + 1).pow(3)
