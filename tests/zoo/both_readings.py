"""What stock libraries compute of a published folder, and what we do; imports of ours by the product's way.

Inputs are not those of the product's own gate: batches with padding, whole contexts, tokens at random.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.image_utils import load_image

from compress import tasks
from compress.config.data import Resize
from compress.config.model import CausalLMModel, EncoderModel, ImageClassifierModel
from compress.data.pictures import preparation
from compress.errors import CompressError
from compress.models import checkpoint
from compress.tasks.image_classification import importing as images
from compress.tasks.language_modeling import importing as language
from compress.tasks.sentence_embedding import importing as sentences

Arrays = dict[str, np.ndarray]
_OPTIONS = {
    "language_modeling": CausalLMModel,
    "sentence_embedding": EncoderModel,
    "image_classification": ImageClassifierModel,
}
_PLAIN: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
_WORDS = "The cat sits on a mat; 12 Dogs, naïve and QUIET, bark: ÜBER die Straße!"
TEXTS = [_WORDS, "a", " ".join([_WORDS] * 12), "", "1 2 3 [SEP] <s> <|im_start|>"]
LENGTHS = (9, 270)  # tokens, of the second as many as the model has positions


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def stock(task: str, folder: Path) -> Arrays:
    """Raises whatever the library does where it does not read the folder."""
    with quiet():
        return {"language_modeling": _language, "sentence_embedding": _sentences}.get(task, _images)(folder)


def _language(folder: Path) -> Arrays:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, **_PLAIN).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if max(tokenizer.get_vocab().values()) >= model.get_input_embeddings().num_embeddings:
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
            folder
        )  # its class adds unknown tokens
    found = logits(model, model.config)
    for number, text in enumerate(TEXTS):
        found[f"plain tokens {number}"] = np.array(
            tokenizer(text, add_special_tokens=False)["input_ids"], int
        )
        found[f"tokens {number}"] = np.array(tokenizer(text)["input_ids"], int)
    ends = model.generation_config.eos_token_id
    found["ends"] = np.unique(np.array([] if ends is None else ends, int))
    return found


def logits(model: Any, config: Any) -> Arrays:
    """Of batches without and with padding."""
    rows = model.get_input_embeddings().num_embeddings
    found, asked = {}, {"use_cache": False, "return_dict": True}
    for length in LENGTHS:
        length = min(length, config.max_position_embeddings)
        ids = torch.randint(min(300, rows), (2, length), generator=torch.Generator().manual_seed(length))
        mask = torch.ones_like(ids)
        found[f"logits {length}"] = model(input_ids=ids, **asked).logits.numpy()
        mask[1, : length // 3] = 0
        padded = model(input_ids=ids, attention_mask=mask, **asked).logits
        found[f"logits {length}, padded"] = padded[:, length // 3 :].numpy()
    return found


def _sentences(folder: Path) -> Arrays:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs=_PLAIN)
    table = getattr(getattr(model[0].auto_model, "embeddings", None), "position_embeddings", None)
    if table is not None:  # the library fails behind its end; RoBERTa counts from behind its padding
        last = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        model.max_seq_length = min(model.max_seq_length, last)
    prompt = model.prompts.get(model.default_prompt_name or "") or ""
    found = {"similarity": np.array(str(model.similarity_fn_name))}
    for number, text in enumerate(TEXTS):
        found[f"tokens {number}"] = model.preprocess([prompt + text])["input_ids"][0].numpy()
    found["embeddings"] = np.asarray(model.encode(TEXTS, batch_size=len(TEXTS), show_progress_bar=False))
    return found


def _pictures(channels: int) -> list[Image.Image]:
    random = np.random.default_rng(7)
    sizes = [(32, 32), (28, 90), (101, 44)]
    made = [Image.fromarray(random.integers(0, 256, (*size, 3)).astype(np.uint8)) for size in sizes]
    return [each.convert("RGB" if channels == 3 else "L") for each in made]


def _images(folder: Path) -> Arrays:
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModelForImageClassification.from_pretrained(folder, **_PLAIN).eval()
    names = model.config.id2label
    found = {"classes": np.array([names[number] for number in sorted(names)])}
    for number, picture in enumerate(_pictures(getattr(model.config, "num_channels", 3))):
        pixels = processor(images=load_image(picture), return_tensors="pt").pixel_values
        found[f"pixels {number}"], found[f"logits {number}"] = (
            pixels.numpy(),
            model(pixels, return_dict=True).logits.numpy(),
        )
    return found


class Ours:
    """An import into `out`, first with and then without the gate that holds it against stock libraries."""

    def __init__(self, task: str, published: Path, out: Path) -> None:
        self.task, self.published, self.out = task, published, out
        self.fetched = False  # whether the weights were asked for
        self.gate: Any = None  # what the import would have asked its gate

    def read(self) -> Arrays:
        """What our checkpoint computes, without the gate; raises CompressError for what is refused, and
        whatever computing does."""
        self.read_only()
        with quiet():
            return self._answers(tasks.load(self.out))

    def read_only(self) -> None:
        """Write our checkpoint."""
        fetch = checkpoint.fetch

        def fetched(*given: Any) -> Path:
            self.fetched = True
            return fetch(*given)

        def gate(*given: Any) -> None:
            self.gate = given

        self.out.mkdir()
        with quiet(), ExitStack() as stack:
            stack.enter_context(mock.patch.object(checkpoint, "fetch", fetched))
            for module in (language, sentences, images):
                stack.enter_context(mock.patch.object(module, "check_reading", gate))
            tasks.import_model(_OPTIONS[self.task](source=f"path:{self.published}"), self.out)

    def passes_gate(self) -> bool:
        from compress.tasks.reading import check_reading

        try:
            with quiet():
                check_reading(*self.gate)
        except CompressError:
            return False
        return True

    def _answers(self, model: Any) -> Arrays:
        if self.task == "language_modeling":
            from compress.tasks.language_modeling.generation import end_tokens

            found, read = logits(model.module, model.config), model.processor.tokenizer
            for number, text in enumerate(TEXTS):
                found[f"plain tokens {number}"] = np.array(read.plain(text), int)
                found[f"tokens {number}"] = np.array(read.encode([text], 10**9)[0], int)
            return {**found, "ends": np.array(sorted(end_tokens(self.out)), int)}
        if self.task == "sentence_embedding":
            found = {"similarity": np.array(model.module.settings.similarity)}
            for number, text in enumerate(TEXTS):
                found[f"tokens {number}"] = model.tokenize([text])["input_ids"][0].numpy()
            return {**found, "embeddings": model.run(model.tokenize(TEXTS)).numpy()}
        found = {"classes": np.array(model.classes)}
        prepare = preparation(self.out, Resize())
        for number, picture in enumerate(_pictures(model.shape[2])):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            inputs = model.inputs(prepare(Image.open(buffer))[None])
            found[f"pixels {number}"] = inputs["pixel_values"].numpy()
            found[f"logits {number}"] = model.run(inputs).numpy()
        return found


def difference(ours: Arrays, theirs: Arrays) -> str | None:
    """The first part that differs by more than rounding; None where there is none."""
    for name in sorted({*ours, *theirs}, key=lambda name: ("logits" in name or "embed" in name, name)):
        here, there = ours.get(name), theirs.get(name)
        if here is None or there is None or here.shape != there.shape:
            return f"{name}: {_shape(here)} here, {_shape(there)} there"
        if here.dtype.kind != "f":
            if not np.array_equal(here, there):
                return f"{name}: {here.tolist()[:9]} here, {there.tolist()[:9]} there"
        elif not np.allclose(here, there, rtol=0, atol=1e-4 * max(1, np.abs(there).max()), equal_nan=True):
            return f"{name}: max abs difference {np.abs(here - there).max():.3g}"
    return None


def _shape(values: np.ndarray | None) -> Any:
    return "nothing" if values is None else values.shape
