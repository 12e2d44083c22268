"""The language model of an artifact: how it reads, where its texts end, and its graph as it was timed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from compress.artifact import check_files
from compress.errors import ArtifactError
from compress.graph import graph_path
from compress.graph.decoder import Decoder
from compress.models.checkpoint import read_json
from compress.runner.machine import threads_available
from compress.serve.chat_template import read_chat_template
from compress.tasks.language_modeling.generation import end_tokens, longest_piece, rotated_anew


class Shipped:
    def __init__(self, artifact: Path) -> None:
        """Raises ArtifactError for a damaged artifact, or one that holds no language model."""
        manifest = check_files(artifact, beside=False)
        self.artifact, self.name = artifact, manifest.name
        timed_with = manifest.environment.get("threads") or 0
        self.threads = min(timed_with, threads_available())  # 0: every core this process may use
        self.context = context_length(artifact)
        self.tokenizer = load_tokenizer(artifact)
        self.template = read_chat_template(artifact)
        self.ends, self.anew = end_tokens(artifact), rotated_anew(artifact)

    def open(self, capacity: int) -> Decoder:
        """The graph, whose cache holds `capacity` tokens, with the threads that its times were taken with."""
        piece = longest_piece(self.anew)
        return Decoder(graph_path(self.artifact), threads=self.threads, capacity=capacity, at_once=piece)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text with the marks that the tokenizer puts around it."""
        return list(self.tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens, marks left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @property
    def chats(self) -> bool:
        """Whether there is a template of chats."""
        return self.template is not None

    def dialogue(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Tokens of messages in the model's chat template, up to where its answer begins.

        Raises ArtifactError where the model has none, ConfigError for messages that it refuses.
        """
        if self.template is None:
            raise ArtifactError(
                "the model has no chat template",
                found=f"none in {self.artifact}",
                next="leave --chat out; over HTTP, ask /v1/completions",
            )
        text = self.template.text(messages)
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def load_tokenizer(artifact: Path) -> Tokenizer:
    """Raises ArtifactError where there is none."""
    path = artifact / "tokenizer.json"
    if not path.is_file():
        raise _no_language_model(artifact, "no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more specific
        raise ArtifactError("tokenizer.json cannot be read", found=error) from None
    tokenizer.no_truncation()  # earlier releases shipped what trainers had left in the file
    tokenizer.no_padding()
    return tokenizer


def context_length(artifact: Path) -> int:
    """Tokens that the model reads at most; raises ArtifactError where config.json does not tell."""
    length = described(artifact / "config.json").get("max_position_embeddings")
    if not isinstance(length, int) or length < 1:
        raise _no_language_model(artifact, f"a context of {length} tokens in config.json")
    return length


def described(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is none; raises ModelError where it is not JSON."""
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _no_language_model(artifact: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"{artifact} holds no language model", found=found, next="compress verify tells what it is"
    )
