"""Readers of judged pairs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.data.similarity import read_matrix, read_table
from compress.errors import DataError


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.cor"
    file.write_bytes("One\nTwo  caf\xe9\n\nThree".encode("latin-1"))
    return file


@pytest.mark.parametrize("below", ["0", "same"])
def test_upper_triangle_of_a_matrix(tmp_path: Path, texts: Path, below: str) -> None:
    rows = ["1 .2 .3", ".2 1 .4", ".3 .4 1"] if below == "same" else ["1\t.2\t.3", "0\t1\t.4", "0\t0\t1"]
    matrix = tmp_path / "m.txt"
    matrix.write_text("\n".join(rows) + "\n")
    names, pairs, scores = read_matrix(matrix, texts, "latin-1")
    assert names == ("One", "Two café", "Three")
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert scores.tolist() == [0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2 3\n0 1 2\n0 0\n", "line 3: the matrix is not square"),
        ("1 2\n0 1\n", "2 rows for 3 texts"),
        ("", "0 rows for 3 texts"),
        ("1 2 3\n0 x 2\n0 0 1", "line 2: not a number"),
        ("1 2 3\n0 nan 2\n0 0 1", "line 2: not a number"),
        ("1 2 3\n\n2 1 2\n9 2 1", "line 4: the matrix is not symmetric"),
    ],
)
def test_malformed_matrix(tmp_path: Path, texts: Path, content: str, message: str) -> None:
    matrix = tmp_path / "m.txt"
    matrix.write_text(content)
    with pytest.raises(DataError, match=message):
        read_matrix(matrix, texts, "latin-1")


@pytest.mark.parametrize("head", ["", "# a comment\n# Word 1\tWord 2\tmean\n", "a\tb\tscore\n", "\n"])
def test_table_with_and_without_header(tmp_path: Path, head: str) -> None:
    table = tmp_path / "t.tsv"
    table.write_text(head + "tiger\tcat\t7.35\r\ntiger\ttiger\t10\n\ncat\t#1 dog\t-1e0\n")
    texts, pairs, scores = read_table(table)
    assert texts == ("tiger", "cat", "#1 dog")
    assert pairs.tolist() == [[0, 1], [0, 0], [1, 2]]
    assert scores.tolist() == [7.35, 10.0, -1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no pairs"),
        ("# only\n", "holds no pairs"),
        ("a\tb\tscore\n", "holds no pairs"),
        ("a\tb\t1\nc\td\n", "line 2: not a pair"),
        ("a\tb\t1\n\tb\t1\n", "line 2: not a pair"),
        ("a\tb\t1\nc\td\tx\n", "line 2: not a number"),
        ("a\tb\tscore\nc\td\tscore\n", "line 2: not a number"),
        ("a,b,1\n", "line 1: not a pair"),
        ("a\tb\tnan\nc\td\t2\n", "line 1: not a number"),
        ("a\tb\tN/A\nc\td\t2\n", "line 1: not a number"),
        ("a\tb\t4,5\nc\td\t3\n", "line 1: not a number"),
        ("a\tb\t1_0\nc\td\t2\n", "line 1: not a number"),
        ("#a\tb\t4,5\nc\td\t3\n", "line 1: not a number"),
        ("a\tb\tscore\nc\td\t1_0\n", "line 2: not a number"),
    ],
)
def test_malformed_table(tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "t.tsv"
    table.write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(table)


def test_texts_that_begin_with_a_hash(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("# Word 1\tWord 2\tmean\n#fun day\tb\t3\n#two\tc\t1\nc\td\t2\n")
    texts, _, scores = read_table(table)
    assert texts == ("#fun day", "b", "#two", "c", "d")
    assert scores.tolist() == [3, 1, 2]


WORD = st.text(alphabet="abcé", min_size=1, max_size=3)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(WORD, WORD, st.floats(-1e6, 1e6)), min_size=1))
def test_table_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, float]]
) -> None:
    table = tmp_path_factory.getbasetemp() / "round.tsv"
    table.write_text("".join(f"{a}\t{b}\t{score!r}\n" for a, b, score in rows), "utf-8")
    texts, pairs, scores = read_table(table)
    assert [(texts[i], texts[j]) for i, j in pairs] == [(a, b) for a, b, _ in rows]
    assert len(set(texts)) == len(texts)
    np.testing.assert_array_equal(scores, [score for _, _, score in rows])
