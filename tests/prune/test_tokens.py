"""A language model with fewer tokens: what stays, and whose rows are one matrix."""

import numpy as np
import pytest
import torch

from compress.prune.tokens import cut_rows, cut_vocabulary
from compress.tasks.language_modeling.model import CausalLM


@pytest.fixture
def model(language_checkpoints):
    return CausalLM.open(language_checkpoints["llama"])


@pytest.fixture
def files(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_words_of_the_chat_template_stay_though_no_text_has_them(model, language_texts, files):
    vocabulary = model.tokenizer.get_vocab()
    counts = np.bincount([n for text in language_texts for n in model.tokenize(text)], minlength=320)
    rare = sorted((n for n in vocabulary.values() if counts[n] > 0), key=lambda n: counts[n])
    word = model.tokenizer.decode(max(rare[:20], key=lambda n: len(model.tokenizer.decode(n))))
    (token,) = model.tokenize(word)
    texts = [text.replace(word.strip(), "") for text in language_texts]
    copy = CausalLM.open(model.folder)
    assert token not in cut_vocabulary(copy, texts, 280, files)
    model.tokenizer.chat_template = "{% for m in messages %}" + word + "{{ m['content'] }}{% endfor %}"
    kept = cut_vocabulary(model, texts, 280, files)
    assert token in kept
    assert len(kept) == 280


@pytest.mark.parametrize("tied", [True, False])
def test_one_matrix_stays_one_and_two_stay_two(tied, model):
    module = model.module
    if not tied:
        module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach() + 1)
    embedding, head = (part.weight.detach().clone() for part in (module.model.embed_tokens, module.lm_head))
    kept = [0, 1, 5, 9, 300]
    cut_rows(model, kept)
    assert (module.lm_head.weight is module.model.embed_tokens.weight) == tied
    assert torch.equal(module.model.embed_tokens.weight, embedding[kept])
    assert torch.equal(module.lm_head.weight, head[kept])
