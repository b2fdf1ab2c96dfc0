"""What functions share, and what each has of its own."""

import torch

from fieldloom.pages.weights import divide_numbers, find_ranges


def test_every_function_is_rebuilt_exactly():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(100, 4, generator=generator)
    functions = [first, first.clone(), first.clone()]
    functions[1][3] = 7.0
    functions[2][3:5] = 8.0
    functions[2][80, 2] = 9.0
    shared, own = divide_numbers(functions)
    for function, part in zip(functions, own, strict=True):
        rebuilt, begin = shared.clone(), 0
        for at, count in part.ranges:
            rebuilt[at : at + count] = part.numbers[begin : begin + count]
            begin += count
        assert begin == len(part.numbers) < 40
        assert torch.equal(rebuilt.view(-1, 4), function)


def test_one_function_has_nothing_of_its_own():
    shared, (own,) = divide_numbers([torch.ones(3, 4)])
    assert own.ranges == []
    assert not len(own.numbers)
    assert torch.equal(shared, torch.ones(12))


def test_ranges_join_across_small_gaps():
    marked = torch.zeros(100, dtype=torch.bool)
    marked[[2, 5, 60, 99]] = True
    assert find_ranges(marked) == [(2, 4), (60, 1), (99, 1)]
