"""Probes: classifiers of real data that are applied to samples."""

from __future__ import annotations

from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from fieldloom.errors import InputError

Samples = Float[Tensor, "n channel *axes"]
Labels = Int[Tensor, " n"]


class Classifier:
    """A support vector machine (RBF kernel, inputs as they are) fitted to real data.

    Its score on samples is their agreement with the requested classes; its accuracy on real
    held-out data shows how reliable that is. It needs no seed. The time of fitting grows faster
    than n^2: use thousands of data, not tens of thousands.
    """

    def __init__(self, data: Samples, labels: Labels) -> None:
        from sklearn.svm import SVC  # late: importing it takes long

        if len(labels.unique()) < 2:
            raise InputError("The data hold fewer than 2 classes: a classifier needs at least 2.")
        self.model = SVC(kernel="rbf", gamma="scale")
        self.model.fit(_rows(data), labels.cpu().numpy())

    def score(self, data: Samples, labels: Labels) -> float:
        """The fraction of the data that is assigned to its label, in [0, 1]."""
        return float((self.model.predict(_rows(data)) == labels.cpu().numpy()).mean())


def _rows(data: Tensor) -> ndarray:
    return data.detach().flatten(1).cpu().numpy()
