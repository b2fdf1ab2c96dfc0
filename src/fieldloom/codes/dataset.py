"""Codes as a data set of torch, for models of one's own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from fieldloom.codes.stored import StoredCodes
from fieldloom.errors import InputError

Item = Tensor | tuple[Tensor, Tensor]


class CodeDataset(Dataset[Item]):
    """Codes (tokens, width), float32, by their number; with labels, pairs of a code and its class.

    Map-style: it has a length, and a ``DataLoader`` may shuffle it and read it by workers, each of
    which opens the files itself. A batch is read at once.

    labels: whether each code comes with its class. Raises InputError where the files have none.
    """

    def __init__(self, codes: StoredCodes, labels: bool = False) -> None:
        if labels and "labels" not in codes.names:
            raise InputError(
                f"the codes in '{codes.path}' have no classes beside them: their data had none, or "
                "they were encoded by an older version."
            )
        self.codes, self.labels = codes, labels

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> Item:
        code = self.codes[index]
        return (code, self.codes.read(index, "labels")) if self.labels else code

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Those of a batch; the loader calls this where there is one."""
        codes = self.codes[indices]
        if not self.labels:
            return list(codes)
        return list(zip(codes, self.codes.read(indices, "labels"), strict=True))
