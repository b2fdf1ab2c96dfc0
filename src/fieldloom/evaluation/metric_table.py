"""What each metric says: the question that it answers, its unit, and which way is better."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

Question = Literal["reconstruction", "enlargement", "samples", "copies", "cost"]
QUESTIONS: Mapping[Question, str] = {
    "reconstruction": "Does it reconstruct?",
    "enlargement": "Does it enlarge?",
    "samples": "Are samples like the data?",
    "copies": "Are they copies?",
    "cost": "What does it cost?",
}


class Meaning(NamedTuple):
    """What a metric says.

    question: the one of ``QUESTIONS`` that it answers.
    label:    its name in words.
    better:   which way is better; empty where neither is.
    unit:     of its value; empty of a number without one.
    says:     what it is, in a few words.
    chief:    whether a report shows it beside its question, rather than in the full table alone.
    features: whether a detector's features decide it, so that two detectors do not compare.
    machine:  whether the machine decides it.
    """

    question: Question
    label: str
    better: Literal["higher", "lower", ""]
    unit: str
    says: str
    chief: bool = False
    features: bool = False
    machine: bool = False

    @property
    def arrow(self) -> str:
        """``↑`` where higher is better, ``↓`` where lower is."""
        return {"higher": "↑", "lower": "↓", "": ""}[self.better]


def _of(
    question: Question, *rows: tuple[str, str, str, str, str], **flags: bool
) -> dict[str, Meaning]:
    """Metrics of one question: rows of a name, a label, ``+``, ``-`` or nothing, a unit, words."""
    ways: dict[str, Literal["higher", "lower", ""]] = {"+": "higher", "-": "lower", "": ""}
    return {
        name: Meaning(question, label, ways[way], unit, says, **flags)
        for name, label, way, unit, says in rows
    }


MEANINGS: Mapping[str, Meaning] = {
    **_of(
        "reconstruction",
        ("mesh.chamfer", "surface distance", "-", "of the longest side", "mean, both ways"),
        ("mesh.iou", "IoU of insides", "+", "", "intersection over union of the insides"),
        ("mesh.normals", "normal consistency", "+", "", "mean cosine between nearest normals"),
        ("snr", "SNR", "+", "dB", "energy of the sound over that of the error"),
        ("iou", "IoU", "+", "", "intersection over union of the cells inside"),
        ("chamfer", "Chamfer distance", "-", "", "squared, between clouds of points of surfaces"),
        ("ws-psnr", "WS-PSNR", "+", "dB", "PSNR, each row weighted by its area on the sphere"),
        ("psnr", "PSNR", "+", "dB", "squared error in decibels: 20 is an error of 10 %, 40 of 1 %"),
        ("ssim", "SSIM", "+", "", "similarity of local structure; 1 is the same picture"),
        ("flip", "FLIP", "-", "", "difference that one sees when flipping between two pictures"),
        chief=True,
    ),
    **_of(
        "reconstruction",
        ("mse", "MSE", "-", "", "mean squared error of values in [0, 1]"),
        ("accuracy", "accuracy", "+", "", "fraction of cells on the right side of the surface"),
        ("empty", "without surface", "-", "shapes", "reconstructions that have no surface"),
    ),
    **_of(
        "reconstruction",
        ("rfid", "rFID", "-", "", "FID between data and their reconstructions"),
        ("rfrechet", "Frechet distance", "-", "", "between data and their reconstructions"),
        features=True,
    ),
    **_of(
        "reconstruction",
        ("ceiling.weights", "lost by the codec", "-", "", "squared error of codes, of variance"),
    ),
    **_of(
        "samples",
        ("fid", "FID", "-", "", "Frechet distance of Inception's features"),
        ("frechet", "Frechet distance", "-", "", "between samples and data, of features"),
        ("kid", "KID", "-", "", "kernel distance between samples and data, of features"),
        ("precision", "precision", "+", "", "fraction of samples among the data"),
        ("recall", "recall", "+", "", "fraction of data among the samples"),
        ("coverage", "coverage", "+", "", "fraction of data with a sample as near as other data"),
        ("density", "density", "+", "", "how many data's balls a sample lies in; 1 is data's own"),
        chief=True,
        features=True,
    ),
    **_of(
        "samples",
        ("kid.error", "error of KID", "", "", "its standard error"),
        ("f1", "F1", "+", "", "harmonic mean of precision and recall"),
        features=True,
    ),
    **_of(
        "samples",
        ("chamfer.1nna", "1-NNA", "", "", "a sample told from data by its neighbour; best 0.5"),
        ("chamfer.coverage", "coverage", "+", "", "fraction of test shapes nearest to a sample"),
        ("chamfer.mmd", "MMD", "-", "", "distance of test shapes to the nearest sample"),
        ("agreement", "class as asked", "+", "", "samples that a classifier labels as asked"),
        chief=True,
    ),
    **_of("samples", ("cloud.frechet", "Frechet distance", "-", "", "of features of clouds"),
          ("cloud.fpd", "FPD", "-", "", "Frechet distance of a point-cloud network's features"),
          ("cloud.kid", "KID", "-", "", "kernel distance, of features of clouds"),
          ("cloud.precision", "precision", "+", "", "fraction of samples among the data"),
          ("cloud.recall", "recall", "+", "", "fraction of data among the samples"),
          ("cloud.coverage", "coverage", "+", "", "fraction of data with a sample as near"),
          ("cloud.density", "density", "+", "", "how many data's balls a sample lies in"),
          chief=True, features=True),
    **_of(
        "samples",
        ("agreement.test", "classifier", "+", "", "held-out data that it labels rightly"),
        ("jsd", "JSD", "-", "", "divergence of where points lie"),
        ("failures", "failures", "-", "samples", "without a surface"),
        ("chamfer.mmd.sample", "MMD of samples", "-", "", "distance of samples to nearest data"),
        ("chamfer.1nna.sample", "1-NNA of samples", "", "", "its part of samples; best 0.5"),
        ("chamfer.1nna.reference", "1-NNA of data", "", "", "its part of test shapes; best 0.5"),
    ),
    **_of(
        "samples",
        ("pattern", "fixed pattern", "-", "", "share of fine detail that all samples have alike"),
        chief=True,
    ),
    **_of(
        "samples",
        ("pattern.test", "pattern of test data", "", "", "the same of test images"),
    ),
    **_of(
        "reconstruction",
        ("free.density", "density of free space", "-", "", "mean, where views see the background"),
        chief=True,
    ),
    **_of(
        "reconstruction",
        ("free.opacity", "opacity of free space", "-", "", "there, of one step along a ray"),
    ),
    **_of(
        "copies",
        ("novelty", "novelty", "", "", "distance to training data over held-out data's: 0 copies"),
        chief=True,
    ),
    **_of(
        "copies",
        ("nearest.sample", "distance of samples", "", "", "to the nearest training datum, median"),
        ("nearest.test", "distance of test data", "", "", "to the nearest training datum, median"),
    ),
    **_of(
        "cost",
        ("learnable", "learned parameters", "-", "", "of field and conditioner"),
        ("gmacs", "arithmetic", "-", "GMAC", "1e9 multiply-accumulates a datum, or view"),
        chief=True,
    ),
    **_of(
        "cost",
        ("parameters", "all parameters", "-", "", "of field, conditioner, encoder; unused ones"),
        ("encoder", "encoder's parameters", "-", "", "a network, or codes and rates"),
        ("inference", "parameters of one field", "-", "", "after its code is applied"),
        ("macs", "arithmetic of a point", "-", "MAC", "multiply-accumulates of one evaluation"),
        ("encoding", "arithmetic of encoding", "-", "GMAC", "from a datum to its code"),
        ("prior", "prior's parameters", "-", "", "those of its codec included"),
        ("sampling", "arithmetic of sampling", "-", "GMAC", "from noise to a code"),
        ("dead", "unused parameters", "-", "", "that the published code has beside these"),
    ),
    **_of("cost", ("decoded", "speed", "+", "a second", "data, or views, drawn"), machine=True),
    **_of("cost", ("memory", "memory", "-", "bytes", "peak of the process"), machine=True),
}  # fmt: skip
"""Metric -> what it says; in the order of a report. ``meaning_of`` also knows ``novel.psnr``."""

OF = {
    "novel": "of held-out views",
    "fitted": "of the codes as fitted",
    "ceiling": "after the codec",
    "train": "of the training data",
}
"""Before a metric's name: what it is of. ``train`` stands in ``expected`` alone."""


class Enlarged(NamedTuple):
    """A metric's name at a larger size: ``psnr.x4.bicubic``. by: empty for the system itself."""

    metric: str
    times: int
    by: str


def parse_enlarged(name: str) -> Enlarged | None:
    """The parts of ``psnr.x4`` and ``psnr.x4.bicubic``; None for other names."""
    found = re.fullmatch(r"([\w-]+)\.x(\d+)(?:\.([\w-]+))?", name)
    return found and Enlarged(found[1], int(found[2]), found[3] or "")


def meaning_of(name: str) -> Meaning | None:
    """What a metric says; None for a name that no evaluation of this package gives."""
    if name in MEANINGS:
        return MEANINGS[name]
    if enlarged := parse_enlarged(name):
        base = MEANINGS.get(enlarged.metric)
        by = f", {enlarged.by}" if enlarged.by else ""
        label = f"{base.label if base else ''} at {enlarged.times}x{by}"
        return base and base._replace(question="enlargement", label=label, chief=False)
    before, _, rest = name.partition(".")
    if before == "emd" and (other := MEANINGS.get(f"chamfer.{rest}")):
        return other._replace(label=f"{other.label}, EMD", chief=False)
    base = MEANINGS.get(rest) if before in OF else None
    return base and base._replace(label=f"{base.label} {OF[before]}")
