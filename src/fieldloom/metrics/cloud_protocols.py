"""Protocols by which published tables compare sets of point clouds."""

from __future__ import annotations

from dataclasses import dataclass

from fieldloom.errors import InputError, unknown
from fieldloom.metrics.cloud_distances import (
    DISTANCES,
    NORMALISATIONS,
    Clouds,
    check_complete,
    distances,
    find_failures,
    normalize_clouds,
)
from fieldloom.metrics.cloud_sets import jsd, matching, two_sample

NEIGHBOURS = ("1nna", "1nna.reference", "1nna.sample")
METRICS = ("mmd", "mmd.sample", "coverage", *NEIGHBOURS, "jsd")


@dataclass(frozen=True)
class CloudProtocol:
    """How a published table compared clouds. Metrics of two protocols are not comparable.

    points:        of every cloud
    normalisation: as ``normalize_clouds`` names it
    measures:      (``chamfer`` or ``emd``, whether squared)
    metrics:       the reported ones, among ``METRICS``
    source:        where the protocol is published, and what is left out here
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
            if measure not in DISTANCES:
                raise unknown("measure", measure, DISTANCES)
        for metric in self.metrics:
            if metric not in METRICS:
                raise unknown("metric", metric, METRICS)


def cloud_metrics(sample: Clouds, reference: Clouds, protocol: CloudProtocol) -> dict[str, float]:
    """Every metric of a protocol by name: ``chamfer.mmd``, ``emd.1nna.sample``, ``jsd``.

    ``failures`` counts the samples that are failures. Raises InputError where the clouds do not
    have the protocol's number of points, where a reference is a failure, and as ``jsd`` does.
    """
    check_complete(reference)
    lost = find_failures(sample)
    for clouds in (sample, reference):
        if clouds.shape[1] != protocol.points:
            raise InputError(
                f"The clouds hold {clouds.shape[1]} points: the protocol judges {protocol.points}, "
                "and another number gives metrics that do not compare."
            )
    sample, reference = (normalize_clouds(c, protocol.normalisation) for c in (sample, reference))
    found = {"failures": float(lost.sum())}
    if "jsd" in protocol.metrics:  # first, since it is fast and refuses a wrong frame
        found["jsd"] = jsd(sample, reference)
    for measure, squared in protocol.measures:
        rs = distances(reference, sample, measure, squared)
        values = matching(rs)
        if not set(NEIGHBOURS).isdisjoint(protocol.metrics):
            rr, ss = (distances(c, c, measure, squared) for c in (reference, sample))
            values |= two_sample(rr, rs, ss)
        found |= {f"{measure}.{f}": v for f, v in values.items() if f in protocol.metrics}
    return found


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
