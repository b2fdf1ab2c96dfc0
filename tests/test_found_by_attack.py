"""What an attack on one vocabulary, and on data as a value, found: each a sentence now."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

import fieldloom
from fieldloom import Data
from fieldloom.encoders import Encoder
from fieldloom.errors import InputError

VALUES = torch.rand(2, 1, 4, 4)
PART = "data.part: a slice, a list of indices, or one boolean an item."


CALLS = {
    "Data(VALUES, label=[1, 2])": "data: label of list where a tensor is needed.",
    "Data(VALUES, label=numpy.array([1, 2]))": "data: label of ndarray where a tensor is needed.",
    "Data(VALUES, cameras={})": "data: cameras of dict where cameras are needed.",
    "Data(VALUES).part(1)": PART,
    "Data(VALUES).part([0.5])": PART,
}
"""What annotations forbid, and users do not check: in a process of its own."""


def test_wrong_kinds_get_a_sentence():
    lines = [
        "import numpy, torch",
        "from fieldloom import Data",
        "from fieldloom.errors import InputError",
        "VALUES = torch.rand(2, 1, 4, 4)",
        *(f"try: {call}\nexcept InputError as error: print(error)" for call in CALLS),
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == list(CALLS.values()), done.stderr


@pytest.mark.parametrize("name", ["index", "label"])
def test_indices_and_labels_are_whole_numbers(name):
    with pytest.raises(InputError, match=f"data: {name} of torch.float32 where whole numbers"):
        Data(VALUES, **{name: torch.rand(2)})


@pytest.mark.parametrize("which", [torch.tensor([[0]]), torch.rand(1), [True], [True] * 3])
def test_a_part_is_of_indices_or_of_one_boolean_an_item(which):
    with pytest.raises(InputError, match="data.part: "):
        Data(VALUES).part(which)
    assert len(Data(VALUES).part([True, False])) == 1
    assert len(Data(VALUES).part([])) == 0


class Lying:
    """Lazy values that are read as something else than they said."""

    shape = (4, 1, 8, 8)
    dtype = torch.uint8

    def __init__(self, read: Callable[[int], object]) -> None:
        self.given = read

    def read(self, which):
        return self.given(len(torch.arange(4)[which]))


@pytest.mark.parametrize(
    "read",
    [
        lambda n: torch.zeros(n + 1, 1, 8, 8, dtype=torch.uint8),
        lambda n: torch.zeros(n, 1, 7, 8, dtype=torch.uint8),
        lambda n: torch.zeros(n, 1, 8, 8),
        lambda n: np.zeros((n, 1, 8, 8), "uint8"),
        lambda n: None,
    ],
    ids=["count", "shape", "dtype", "kind", "nothing"],
)
@pytest.mark.parametrize("which", [slice(2), [0, 2], [3]], ids=["slice", "indices", "one"])
def test_lazy_values_are_what_they_said(read, which):
    with pytest.raises(InputError, match="data: lazy values of the shape"):
        Data(Lying(read)).part(which)
    with pytest.raises(InputError, match="data: lazy values of the shape"):
        _ = Data(Lying(read)).tensor
    right = Data(Lying(lambda n: torch.zeros(n, 1, 8, 8, dtype=torch.uint8)))
    assert right.part(which).shape[1:] == right.shape[1:]


def test_codes_are_decoded_where_a_plain_tensor_was_observed():
    system = fieldloom.build("mnif", "tiny")
    images = torch.rand(2, 1, 8, 8)
    code = system.encode(images)
    made = system.predict_at(code, images)
    assert torch.equal(made.tensor, system.predict_at(code, Data(images)).tensor)


@pytest.mark.parametrize(
    ("kind", "name"), [("source", "picture"), ("conditioner", "direct"), ("denoiser", "tensors")]
)
def test_a_part_cannot_take_an_old_name(kind, name):
    """Recipes that say it mean the part that is called otherwise today."""
    with pytest.raises(InputError, match=f"register: {kind} '{name}' is an old name of"):
        fieldloom.register(kind, name, Encoder)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("separable", "independent", False),
        ("whole", "reads_grid", True),
        ("stacks", "splits_batches", True),
        ("stored", "stored_codes", lambda self, index, family: None),
    ],
)
def test_an_encoder_of_before_is_told_what_its_words_are_called(old, new, value):
    """They would be ignored: codes of a batch that depend on one another were found apart."""
    with pytest.raises(InputError, match=f"encoder Mine: '{old}' is called '{new}' now"):
        type("Mine", (Encoder,), {old: value})
    both = type("Mine", (Encoder,), {old: value, new: value})  # for programs of both versions
    assert getattr(both, new) is value


def test_names_of_the_package_cannot_be_registered_again():
    """Otherwise every recipe that says so would be refused until the process ends."""
    with pytest.raises(InputError, match="field 'siren' is the package's own"):
        fieldloom.register("field", "siren", int)
    assert fieldloom.build("functa", "tiny") is not None
