"""The splits as a stage: what is written, what is refused, and that nothing leaks."""

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.config.data import PairFile, PairFormat, PairSplit, Retrieval, TextData, TextFile
from compress.data import Splits, input_digests, load_texts, open_splits
from compress.data.splits import check_disjoint
from compress.errors import CompressError, ConfigError, DataError, SourceError

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def sentence(document: int, number: int) -> str:
    return f"Document {document} says in its sentence {NUMBERS[number]} what no other does."


@pytest.fixture
def config(tmp_path: Path) -> TextData:
    """80 documents of 10 sentences; 20 more in another corpus, one of which repeats a judged text."""
    lines = [" ".join(sentence(d, n) for n in range(10)) for d in range(80)]
    (tmp_path / "main.txt").write_text("\n".join(lines), "utf-8")
    lines = [" ".join(sentence(d, n) for n in range(10)) for d in range(80, 100)]
    lines += ["This text was judged by people of flesh. Nobody else knows of this one sentence here."]
    (tmp_path / "more.txt").write_text("\n".join(lines), "utf-8")
    texts = ["This text was judged by PEOPLE of flesh.", "And this other text was judged too.", "Short."]
    (tmp_path / "judged.txt").write_text("\n".join(texts), "utf-8")
    (tmp_path / "matrix.txt").write_text("1 .5 .1\n0 1 .2\n0 0 1\n", "utf-8")
    (tmp_path / "words.tsv").write_text("cat\tdog\t5\nold\tnew\t1.5\n", "utf-8")
    (tmp_path / "other.tsv").write_text("# head\nDog\tcat\t4\nsmall\tlittle\t9\n", "utf-8")
    pairs = {
        "judged": PairFile(
            format=PairFormat.matrix,
            source=f"path:{tmp_path}/matrix.txt",
            texts=f"path:{tmp_path}/judged.txt",
        ),
        "words": PairFile(source=f"path:{tmp_path}/words.tsv"),
        "other": PairFile(source=f"path:{tmp_path}/other.tsv", split=PairSplit.select),
    }
    corpora = {name: TextFile(source=f"path:{tmp_path}/{name}.txt") for name in ("main", "more")}
    return TextData(
        corpora=corpora, pairs=pairs, test_corpus="main", calibration=20, select=20, test=40, max_words=40
    )


def changed(config: TextData, **changes: Any) -> TextData:
    return dataclasses.replace(config, **changes)


def opened(config: TextData, folder: Path) -> Splits:
    open_splits(config, folder)
    return load_texts(folder)


def normal(text: str) -> str:
    return " ".join(text.lower().split())


def test_what_was_asked_for_is_delivered(config: TextData, tmp_path: Path) -> None:
    splits = opened(config, tmp_path / "out")
    assert [len(split.texts) for split in splits.texts[:1] + splits.texts[2:]] == [20, 20, 40]
    for split in (splits.calibration, splits.select, splits.test):
        assert all(text.startswith("Document") and text.count("says") == 1 for text in split.texts)
        assert all(int(t.split()[1]) < 80 for t in split.texts)  # of the test corpus only
        assert len(set(split.documents)) >= 10
    assert any(int(text.split()[1]) >= 80 for text in splits.train.texts if text.startswith("Document"))


def test_no_document_and_no_text_is_in_two_splits(config: TextData, tmp_path: Path) -> None:
    splits = opened(config, tmp_path / "out")
    owner: dict[str, str] = {}
    for split in splits.texts:
        for text in split.texts:
            for part in text.split(". "):
                assert owner.setdefault(normal(part).rstrip("."), split.name) == split.name
        named = {t.split()[1] for t in split.texts if t.startswith("Document")}
        assert all(owner.setdefault(f"document {d}", split.name) == split.name for d in named)


def test_judged_texts_are_in_no_split(config: TextData, tmp_path: Path) -> None:
    splits = opened(config, tmp_path / "out")
    everything = normal(" ".join(text for split in splits.texts for text in split.texts))
    assert "judged by people" not in everything
    assert "nobody else knows" in everything  # its neighbour stays
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["dropped"]["sentences"]["train"] == 1


def test_a_sentence_of_two_documents_is_in_one_split(config: TextData, tmp_path: Path) -> None:
    same = "Every single document of this corpus ends with this line."
    lines = (tmp_path / "main.txt").read_text().split("\n")
    (tmp_path / "main.txt").write_text("\n".join(f"{line} {same}" for line in lines))
    splits = opened(changed(config, test=400, max_words=60), tmp_path / "out")
    holders = [split.name for split in splits.texts if any(same in text for text in split.texts)]
    assert holders == ["test"]
    assert splits.test.texts.count(same) == 1


def test_train_passages_vary_within_bounds(config: TextData, tmp_path: Path) -> None:
    lengths = [len(text.split()) for text in opened(config, tmp_path / "out").train.texts]
    assert min(lengths) >= config.min_words
    assert max(lengths) <= config.max_words
    assert len(set(lengths)) >= 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.sampled_from(["upper", "title", "spaces", "same"]))
def test_copies_in_other_case_or_space_stay_in_one_split(
    config: TextData, tmp_path: Path, rng: random.Random, change: str
) -> None:
    """Sentences of documents are copied into others, written otherwise; splits share none of them."""
    write = {
        "upper": str.upper,
        "title": str.title,
        "spaces": lambda text: "\t".join(text.split(" ")).replace("\t", " \u00a0 ", 2),
        "same": str,
    }[change]
    documents = [[sentence(d, n) for n in range(10)] for d in range(60)]
    for _ in range(40):
        source, target = rng.sample(range(60), 2)
        documents[target][rng.randrange(10)] = write(rng.choice(documents[source]))
    (tmp_path / "main.txt").write_text("\n".join(" ".join(each) for each in documents), "utf-8")
    splits = opened(config, tmp_path / "out")
    owner: dict[str, str] = {}
    for split in splits.texts:
        for text in split.texts:
            for part in re.findall(r"document \d+ says in its sentence \w+", normal(text)):
                assert owner.setdefault(part, split.name) == split.name
    assert len(set(owner.values())) == 4


def test_near_duplicates_of_test_are_told(config: TextData, tmp_path: Path) -> None:
    """Every sentence differs from its neighbours' by a number and a word, and must not count; one does."""
    before = opened(config, tmp_path / "one").test.texts[0]
    with (tmp_path / "more.txt").open("a", encoding="utf-8") as file:
        file.write("\n" + before.replace("no other does", "no other ever does"))
    facts = opened(config, tmp_path / "two").facts()
    found = facts["test"].near_duplicates
    assert found is not None
    assert found.examples >= 1
    assert found.limit <= found.similarity <= 1
    assert found.other_split in ("train", "select", "calibration")
    judged = facts["pairs/judged"].near_duplicates
    assert judged is not None
    assert judged.examples == 0
    assert facts["train"].near_duplicates is None
    assert facts["pairs/other"].near_duplicates is None  # of the select split


def test_pairs(config: TextData, tmp_path: Path) -> None:
    pairs = opened(config, tmp_path / "out").pairs
    assert pairs["judged"].pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    np.testing.assert_array_equal(pairs["judged"].scores, [0.5, 0.1, 0.2])
    assert pairs["words"].split is PairSplit.test
    other = pairs["other"]  # "Dog, cat" is judged in a test set
    assert [[other.texts[i] for i in pair] for pair in other.pairs] == [["small", "little"]]
    assert other.scores.tolist() == [9.0]


def test_the_same_config_gives_the_same_bytes(config: TextData, tmp_path: Path) -> None:
    for name in ("one", "two"):
        open_splits(config, tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_another_seed_gives_other_documents(config: TextData, tmp_path: Path) -> None:
    first = opened(config, tmp_path / "one")
    second = opened(changed(config, seed=1), tmp_path / "two")
    assert set(first.test.documents) != set(second.test.documents)


def test_facts_and_manifest(config: TextData, tmp_path: Path) -> None:
    facts = opened(changed(config, train=50), tmp_path / "out").facts()
    counts = {name: (fact.examples, fact.requested) for name, fact in facts.items()}
    assert counts == {
        "calibration": (20, 20),
        "train": (50, 50),
        "select": (20, 20),
        "test": (40, 40),
        "pairs/judged": (3, None),
        "pairs/words": (2, None),
        "pairs/other": (1, None),
    }
    assert len({fact.fingerprint for fact in facts.values()}) == len(facts)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "out" / "test.jsonl").read_text().splitlines()]
    assert manifest["splits"]["test"]["words"] == sum(len(row["text"].split()) for row in rows)
    assert manifest["splits"]["test"]["documents"] == len({row["document"] for row in rows})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": 5000}, ["split test", "at least 5000", "lower data.test"]),
        ({"calibration": 800}, ["split calibration", "lower data.calibration"]),
        ({"train": 100_000}, ["split train", "0 takes all there is"]),
        ({"min_words": 50, "max_words": 60}, ["split test", "0 examples", "lower data.min_words"]),
    ],
)
def test_too_little_text(config: TextData, tmp_path: Path, changes: dict[str, int], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        open_splits(changed(config, **changes), tmp_path / "out")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("file", "content", "kind", "message"),
    [
        ("main.txt", None, SourceError, "main.txt"),
        ("main.txt", b"", DataError, "holds no text"),
        ("main.txt", b"caf\xe9", DataError, "encoding=latin-1"),
        ("matrix.txt", b"1 2\n0 1", DataError, "2 rows for 3 texts"),
        ("words.tsv", b"cat\tdog", DataError, "line 1"),
        ("other.tsv", b"cat\tdog\t1\n", DataError, "every pair of other is in a test set"),
    ],
)
def test_bad_files(
    config: TextData,
    tmp_path: Path,
    file: str,
    content: bytes | None,
    kind: type[CompressError],
    message: str,
) -> None:
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(kind, match=message):
        open_splits(config, tmp_path / "out")


def test_a_matrix_needs_texts(config: TextData, tmp_path: Path) -> None:
    config.pairs["judged"].texts = None
    with pytest.raises(ConfigError, match=r"data.pairs.judged.texts"):
        open_splits(config, tmp_path / "out")


def test_a_wrong_sha256_is_refused(config: TextData, tmp_path: Path) -> None:
    config.corpora["main"].sha256 = "0" * 64
    with pytest.raises(SourceError, match="not what was pinned"):
        open_splits(config, tmp_path / "out")


@pytest.mark.parametrize("harm", ["change", "remove", "manifest"])
def test_damaged_splits_are_refused(config: TextData, tmp_path: Path, harm: str) -> None:
    open_splits(config, tmp_path / "out")
    if harm == "change":
        with (tmp_path / "out" / "train.jsonl").open("a") as file:
            file.write('{"text": "More.", "document": 1}\n')
    elif harm == "remove":
        (tmp_path / "out" / "pairs" / "words.json").unlink()
    else:
        (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="run again"):
        load_texts(tmp_path / "out")


def test_shared_examples_are_named(config: TextData, tmp_path: Path) -> None:
    splits = opened(config, tmp_path / "out")
    test, train = splits.test, splits.train
    leak = dataclasses.replace(train, texts=(test.texts[0].upper(), *train.texts[1:]))
    with pytest.raises(DataError) as caught:
        check_disjoint(dataclasses.replace(splits, train=leak))
    assert "train and test" in str(caught.value)
    assert test.texts[0] in str(caught.value)
    leak = dataclasses.replace(train, texts=(test.texts[0].replace(" ", " \t "), *train.texts[1:]))
    with pytest.raises(DataError, match="train and test"):
        check_disjoint(dataclasses.replace(splits, train=leak))
    leak = dataclasses.replace(train, documents=(test.documents[0], *train.documents[1:]))
    with pytest.raises(DataError, match=r"train and test(.|\n)*document"):
        check_disjoint(dataclasses.replace(splits, train=leak))
    leak = dataclasses.replace(train, texts=("Short.", *train.texts[1:]))
    with pytest.raises(DataError, match="pairs/judged and train"):
        check_disjoint(dataclasses.replace(splits, train=leak))
    pairs = {**splits.pairs, "other": dataclasses.replace(splits.pairs["words"], split=PairSplit.select)}
    with pytest.raises(DataError, match="pairs/words and pairs/other"):
        check_disjoint(dataclasses.replace(splits, pairs=pairs))


def test_input_digests_follow_the_content(config: TextData, tmp_path: Path) -> None:
    before = input_digests(config)
    assert len(before) == 6
    (tmp_path / "judged.txt").write_text("other")
    after = input_digests(config)
    assert [source for source in before if before[source] != after[source]] == [f"path:{tmp_path}/judged.txt"]


def test_documents_of_retrieval_are_in_no_other_split_and_sentences_ask_for_what_follows_them(
    config, tmp_path
):
    splits = opened(changed(config, retrieval=Retrieval(test=6, select=3)), tmp_path / "out")
    asked = splits.retrieval["test"]
    assert len(asked.queries) == 6 * 5
    for query, answer, document in zip(asked.queries, asked.answers, asked.documents, strict=True):
        passage = asked.passages[answer]
        number = query.split()[1]
        assert passage == " ".join(sentence(int(number), n) for n in range(5, 10))
        assert document == int(number)
    others = " ".join(text for split in splits.texts for text in split.texts)
    others += " ".join(splits.retrieval["select"].queries)
    assert not [number for number in set(asked.documents) if f"Document {number} says" in others]
    assert splits.test_sets["retrieval/test"] == splits.facts()["retrieval/test"].fingerprint
    assert splits.facts()["retrieval/test"].examples == 30
    path = tmp_path / "out" / "retrieval" / "test.json"
    path.write_text(path.read_text("utf-8").replace("zero", "none", 1), "utf-8")
    with pytest.raises(DataError, match="was changed after it was written"):
        load_texts(tmp_path / "out")


def test_too_few_documents_for_retrieval_are_told(config, tmp_path):
    with pytest.raises(DataError, match=r"(?s)too few documents with passages.*data.retrieval.select=3"):
        opened(changed(config, retrieval=Retrieval(test=79, select=3)), tmp_path / "out")
