import math

import pytest

from fieldloom.report.words import format_measured, format_number, format_seconds, format_size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"), (12.3456, "12.35"), (3, "3"), (1234567.0, "1,234,567"), (160064, "160,064"),
        (14443.2, "14,443"), (0.0001536, "0.0001536"), (math.inf, "inf"), (math.nan, "nan"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(20.03, "20.0"), (0.9495, "0.950"), (1.0, "1"), (395464704, "395,464,704"), (0, "0"),
     (123.4, "123"), (1e-6, "1e-06")],
)  # fmt: skip
def test_measured_numbers_keep_their_digits(value, text):
    assert format_measured(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00014, "0.14 ms"), (0.42, "420 ms"), (12, "12 s"), (60, "1 min"), (103.7, "1 min 44 s"),
     (7500, "2 h 5 min"), (59.8, "60 s")],
)  # fmt: skip
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_sizes():
    assert (format_size(512), format_size(395464704)) == ("512 bytes", "377 MiB")
    assert format_size(3 * 2**31) == "6 GiB"
