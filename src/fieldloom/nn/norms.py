"""Batch norms whose batch several processes compute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fieldloom.portion import Portion, current_portion


def batch_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a batch norm to the last axis of x (..., channels), with the mean and the variance of
    all its other axes, of the whole batch where this process computes a portion of one."""
    portion, flat = current_portion(), x.reshape(-1, x.shape[-1])
    if portion is None or not norm.training or not isinstance(norm, nn.BatchNorm1d):
        found: Tensor = norm(flat)
        return found.view_as(x)
    return _norm_together(norm, flat, portion).view_as(x)


def _norm_together(norm: nn.BatchNorm1d, x: Tensor, portion: Portion) -> Tensor:
    """Batch norm of x (n, channels), of which each process has some rows (arXiv:1502.03167,
    algorithm 1). It may be differentiated twice.

    Means and variances of the parts give those of the whole, without the cancellation that sums of
    squares would have (Chan, Golub and LeVeque, 1983, eq. 2.1).
    """
    own_mean = x.mean(0)
    own_variance = (x - own_mean).square().mean(0)
    counts = torch.full_like(own_mean, len(x))
    parts = portion.gather_processes(torch.stack([counts, own_mean, own_variance]))
    number, means, variances = parts[:, 0].detach(), parts[:, 1], parts[:, 2]
    share, total = number / number.sum(0), number[:, 0].sum()
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)
    _update(norm, mean.detach(), variance.detach() * total / (total - 1).clamp_min(1))
    found = (x - mean) * (variance + norm.eps).rsqrt()
    return found if norm.weight is None else found * norm.weight + norm.bias


@torch.no_grad()
def _update(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor) -> None:
    """Let running statistics follow, as ``torch.nn.BatchNorm1d`` does."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    momentum = norm.momentum
    part = 1 / float(norm.num_batches_tracked) if momentum is None else momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), part)
    norm.running_var.lerp_(variance.to(norm.running_var), part)
