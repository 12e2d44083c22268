"""Which output each class of the data is: by name, by number, or an error with both lists."""

import pytest

from compress.data.class_names import output_numbers
from compress.errors import DataError

TWELVE = [f"LABEL_{number}" for number in range(12)]
FOLDERS = sorted(str(number) for number in range(12))  # 0, 1, 10, 11, 2, ...
WORDNET = [f"n{number:08}" for number in range(1000)]


@pytest.mark.parametrize(
    ("names", "outputs", "expected"),
    [
        (["cat", "dog"], ["dog", "cat"], [1, 0]),
        (["Cat", "polar_bear"], ["polar bear", "ant", "cat"], [2, 0]),
        (FOLDERS, TWELVE, [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]),
        (FOLDERS, [str(number) for number in range(12)], [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]),
        (["LABEL_1", "LABEL_0"], TWELVE, [1, 0]),
        (["01", "2"], ["ant", "bee", "cat"], [1, 2]),
        (["crane", "crane"], ["crane", "crane"], [0, 1]),
        (WORDNET, [f"thing {number}" for number in range(1000)], list(range(1000))),
        ([], ["dog", "cat"], [0, 1]),
    ],
)
def test_folders_are_outputs_of_their_name(names, outputs, expected):
    assert output_numbers(names, outputs, ranked=True) == (expected, tuple(outputs))


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["cat", "dog"], ["cat", "hound"]),
        (["cat", "dog"], ["LABEL_0", "LABEL_1"]),  # which of both is which, nobody said
        (["1", "2"], ["LABEL_0", "LABEL_1"]),
        (["crane"], ["crane", "crane"]),
        (["cat", "CAT"], ["cat", "dog"]),
        (["0", "00"], ["cat", "dog"]),
        (["0", "1"], ["1990", "2000"]),
        (["0", "2"], ["1", "2", "3"]),
    ],
)
def test_a_mismatch_shows_both_lists(names, outputs):
    with pytest.raises(DataError) as raised:
        output_numbers(names, outputs, ranked=True)
    assert ", ".join(names) in str(raised.value)
    assert ", ".join(outputs) in str(raised.value)
    assert "data.classes=[...]" in str(raised.value)


def test_numbers_of_a_file_are_those_of_outputs_without_names():
    assert output_numbers(["cat", "dog"], ["LABEL_0", "LABEL_1"]) == ([0, 1], ("cat", "dog"))
    with pytest.raises(DataError):
        output_numbers(["cat", "dog", "ant"], ["LABEL_0", "LABEL_1"])


def test_the_user_names_the_outputs():
    found = output_numbers(["cat", "dog"], ["LABEL_0", "LABEL_1"], given=["dog", "cat"], ranked=True)
    assert found == ([1, 0], ("dog", "cat"))
    assert output_numbers([], ["b", "a"], given=["a", "b"]) == ([1, 0], ("b", "a"))  # of a file without names
    with pytest.raises(DataError, match="in another order"):
        output_numbers(["cat", "dog"], ["cat", "dog"], given=["dog", "cat"], ranked=True)
    with pytest.raises(DataError, match="every output"):
        output_numbers(["cat", "dog"], ["LABEL_0", "LABEL_1"], given=["dog"], ranked=True)
