"""Sources are divided into parts for training and testing."""

from collections import Counter

import pytest
import torch

from fieldloom.errors import InputError
from fieldloom.modalities.sources import divide
from fieldloom.modalities.sources.source import choose, make_source


def test_splits():
    train, test = divide(10, (0.8, 0.2), shuffle=True)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(10))
    assert torch.equal(train, divide(10, (0.8, 0.2), shuffle=True)[0])
    assert divide(10, (7, 2), shuffle=False)[1].tolist() == [8, 9]  # a validation part between
    assert divide(10, (0.7, 0.2), shuffle=False)[1].tolist() == [7, 8]
    whole = divide(10, (10, 0), shuffle=False)
    assert [len(part) for part in whole] == [10, 0]
    assert len(divide(10, (1.0, 0.0), shuffle=False)[0]) == 10
    for split in [(0.0, 1.0), (8, 3), (11, 0)]:
        with pytest.raises(InputError, match="does not fit 10 signals"):
            divide(10, split, shuffle=False)


@pytest.mark.parametrize(
    ("limit", "labels", "expected"),
    [
        (3, None, [0, 1, 2]),
        (4, "aaaabbbb", [0, 1, 4, 5]),
        (5, "aaaabbbb", [0, 1, 2, 4, 5]),
        (6, "aabbbbbb", [0, 1, 2, 3, 4, 5]),
        (4, "abbbbcccc", [0, 1, 2, 5]),
        (2, "aabbcc", [0, 2]),
        (3, "abcabc", [0, 1, 2]),
        (9, "ab", [0, 1]),
    ],
)
def test_of_each_class_the_same_number_is_chosen(limit, labels, expected):
    count = len(labels or "abcdef")
    assert list(choose(limit, count, labels and list(labels))) == expected


def test_each_part_keeps_its_fraction():
    parts = ["train"] * 80 + ["val"] * 1 + ["test"] * 19
    labels = [*"ab"] * 50
    chosen = choose(20, 100, labels, parts)
    assert Counter(parts[i] for i in chosen) == {"train": 15, "val": 1, "test": 4}
    assert Counter(labels[i] for i in chosen if parts[i] == "train") == {"a": 8, "b": 7}
    assert chosen == sorted(set(chosen))
    assert {parts[i] for i in choose(3, 100, None, parts)} == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ([b"dog", b"cat", b"dog"], ("cat", "dog"), [1, 0, 1]),
        (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
        ([10.0, 2.0, 10.0], ("2", "10"), [1, 0, 1]),
        ([10, 2, 1], ("1", "2", "10"), [2, 1, 0]),
        ([0.5, -1.0, 0.0], ("-1", "0", "0.5"), [2, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        (["10", "2", "1"], ("1", "10", "2"), [1, 2, 0]),  # texts, as folders are sorted
        ([b"\xff", b"a", b"a"], ("a", "\\xff"), [1, 0, 0]),
    ],
)
def test_the_names_of_classes(labels, names, numbers):
    source = make_source(torch.zeros(3, 1, 2, 2), labels, (1.0, 0.0), shuffle=False)
    assert source.names == names
    assert source.labels.tolist() == numbers


def test_given_classes_keep_their_order_and_number():
    make = lambda limit: make_source(
        torch.arange(4.0).reshape(4, 1, 1, 1), [2, 0, 2, 0], (1.0, 0.0), shuffle=False,
        limit=limit, classes=["eel", "cat", "dog"],
    )  # fmt: skip
    for limit in (None, 2):
        source = make(limit)
        assert source.names == ("eel", "cat", "dog")
        assert source.labels.tolist() == [2, 0, 2, 0][:limit]
        assert "3 classes (eel, cat, dog)" in source.summary.describe()
