"""`compress generate ARTIFACT --prompt ...`: what the shipped language model writes, token by token."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from compress.artifact import check_files
from compress.config.checks import allowed_of, number
from compress.errors import ArtifactError, ConfigError
from compress.graph import graph_path
from compress.graph.decoder import Decoder
from compress.tasks.language_modeling.generation import continuation, end_tokens, likeliest, rotated_anew


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to write. Raises ConfigError for a value out of range."""

    prompt: str
    max_new_tokens: int = number(128, 1, 2**31)
    temperature: float = number(0.0, 0.0, 100.0)  # 0: always the most likely token
    # sample from the most likely tokens that together have this probability
    top_p: float = number(1.0, 1e-6, 1.0)
    seed: int = number(0, 0, 2**63)
    chat: bool = False  # the prompt is what a user says to an assistant

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ConfigError("the prompt is empty", next='--prompt "Once upon a time"')
        for item in fields(self):
            if allowed := allowed_of(Request, item.name):
                allowed.check(f"--{item.name.replace('_', '-')}", getattr(self, item.name))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Text goes to stdout as it is made, tokens a second to stderr."
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--max-new-tokens", type=int, default=Request.max_new_tokens)
    parser.add_argument(
        "--temperature", type=float, default=Request.temperature, help="0: always the most likely token"
    )
    parser.add_argument(
        "--top-p", type=float, default=Request.top_p, help="probability of the tokens to sample from"
    )
    parser.add_argument("--seed", type=int, default=Request.seed)
    parser.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    print_text(args.artifact, Request(**{item.name: getattr(args, item.name) for item in fields(Request)}))


@dataclass(frozen=True, kw_only=True)
class Timing:
    prompt_tokens: int
    new_tokens: int
    first_seconds: float  # from the prompt to the first token
    rest_seconds: float  # of all tokens after the first
    full: bool  # whether the context ended it

    def text(self) -> str:
        sentence = f"{self.new_tokens} tokens after a prompt of {self.prompt_tokens}; "
        sentence += f"time to first token {1e3 * self.first_seconds:.0f} ms"
        if self.new_tokens > 1:
            sentence += f", then {(self.new_tokens - 1) / self.rest_seconds:.1f} tokens/s"
        return sentence + ("; the model's context is full" if self.full else "")


def generate(artifact: Path, request: Request, write: Callable[[str], object]) -> Timing:
    """Have the model in `artifact` go on after the prompt; every piece of text goes to `write` at once.

    Raises ArtifactError for a damaged artifact or one of another kind, ConfigError for a prompt that is
    longer than the model's context.
    """
    check_files(artifact)
    context, ends = context_length(artifact), end_tokens(artifact)
    tokenizer, ids = _encode(artifact, request)
    if len(ids) > context:
        raise ConfigError(
            "the prompt is longer than the model's context",
            found=f"{len(ids)} tokens",
            allowed=f"at most {context}",
        )
    fitting = context - len(ids) + 1  # the last token is never read
    count = min(request.max_new_tokens, fitting)
    decoder = Decoder(graph_path(artifact), capacity=len(ids) + count)
    text = DecodeStream(ids=ids, skip_special_tokens=True)
    random = np.random.default_rng(request.seed)
    clock = [time.perf_counter()]
    for token in continuation(
        decoder,
        ids,
        count,
        lambda logits: choose(logits, request.temperature, request.top_p, random),
        rotated_anew(artifact),
    ):
        clock.append(time.perf_counter())
        if token in ends:
            break
        if piece := text.step(tokenizer, token):
            write(piece)
    new = len(clock) - 1
    return Timing(
        prompt_tokens=len(ids),
        new_tokens=new,
        first_seconds=clock[1] - clock[0],
        rest_seconds=clock[-1] - clock[1],
        full=new == fitting < request.max_new_tokens,
    )


def choose(logits: np.ndarray, temperature: float, top_p: float, random: np.random.Generator) -> int:
    """A token by its logits (vocabulary,): the first most likely one, or one of the nucleus.

    Nucleus: the fewest tokens whose probabilities sum to `top_p` (Holtzman et al., The curious case of
    neural text degeneration, ICLR 2020).
    """
    if temperature == 0.0:
        return likeliest(logits)
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    order = np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order])
    nucleus = int(np.searchsorted(sums, top_p * sums[-1])) + 1
    return int(order[np.searchsorted(sums, random.random() * sums[nucleus - 1], side="right")])


def print_text(artifact: Path, request: Request) -> None:
    """The text to stdout as it comes, how fast it came to stderr."""

    def write(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    timing = generate(artifact, request, write)
    write("\n")
    print(timing.text(), file=sys.stderr)


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


def _encode(artifact: Path, request: Request) -> tuple[Tokenizer, list[int]]:
    tokenizer = load_tokenizer(artifact)
    if request.chat:
        text = _dialogue(artifact, request.prompt)
        return tokenizer, list(tokenizer.encode(text, add_special_tokens=False).ids)
    return tokenizer, list(tokenizer.encode(request.prompt).ids)


def _dialogue(artifact: Path, prompt: str) -> str:
    """The prompt in the model's chat template, which transformers runs in a sandbox."""
    import transformers  # takes seconds

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(artifact), local_files_only=True)
    if not tokenizer.chat_template:
        raise ArtifactError(
            "the model has no chat template", found=f"none in {artifact}", next="leave --chat out"
        )
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def context_length(artifact: Path) -> int:
    """Tokens that the model reads at most; raises ArtifactError where config.json does not tell."""
    length = read_json(artifact / "config.json").get("max_position_embeddings")
    if not isinstance(length, int) or length < 1:
        raise _no_language_model(artifact, f"a context of {length} tokens in config.json")
    return length


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ArtifactError(f"{path.name} is not JSON", found=error) from None
    return content if isinstance(content, dict) else {}


def _no_language_model(artifact: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"{artifact} holds no language model", found=found, next="compress verify tells what it is"
    )
