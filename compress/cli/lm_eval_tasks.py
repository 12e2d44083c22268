"""Tasks of EleutherAI's lm-evaluation-harness on the model that ships.

No other file imports the extra `lm-eval`, and only the command imports this one. Text is tokenised, truncated
and scored as lm-eval does it with transformers' models (its HFLM), so that results can be compared.
"""

import json
import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from scipy.special import logsumexp
from tokenizers import Tokenizer

from compress.errors import ArtifactError, CompressError, ConfigError, DataError, did_you_mean
from compress.graph.files import sha256_graphs
from compress.serve.shipped import Shipped, described
from compress.tasks.language_modeling.generation import (
    PIECE,
    continuation,
    likeliest,
)

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, make_table
except ImportError as error:
    raise ConfigError(
        "compress lm-eval needs lm-evaluation-harness",
        found=error,
        next="pip install '.[lm-eval]'",
    ) from None

NEW_TOKENS = 256  # where a task does not say how many; lm-eval's own number


class ArtifactLM(TemplateLM):  # type: ignore[misc]
    """The shipped model as lm-eval asks it, a request at a time."""

    def __init__(self, artifact: Path) -> None:
        """Raises ArtifactError for a damaged artifact, or one that holds no language model."""
        super().__init__()
        self.shipped = shipped = Shipped(artifact)
        self.max_length, self.ends, self.anew = shipped.context, shipped.ends, shipped.anew
        self.coder = shipped.tokenizer  # lm-eval takes `tokenizer` for one of transformers
        self.prefix = _prefix(artifact, self.coder, self.ends)
        self.decoder = shipped.open(capacity=1)
        self.context: list[int] | None = None  # what the decoder has read, for the next choice of a question

    @property
    def eot_token_id(self) -> int:
        return self.prefix

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        if add_special_tokens is None:
            mark = self.coder.id_to_token(self.prefix)
            add_special_tokens = not (mark and string.startswith(mark))
        return list(self.coder.encode(string, add_special_tokens=add_special_tokens).ids)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Of each continuation of a context: log-likelihood in nats, whether greedy decoding writes it."""
        longest = max((len(context) + len(after) for _, context, after in requests), default=1)
        self.decoder.capacity = min(longest, self.max_length)  # a whole context's cache may be gigabytes
        self.context = None
        return [self._score(context, after) for _, context, after in _progress(requests, "scored")]

    def _score(self, context: list[int], after: list[int]) -> tuple[float, bool]:
        if len(after) > self.max_length:
            raise DataError(
                "a continuation is longer than the model's context",
                found=f"{len(after)} tokens",
                allowed=f"at most {self.max_length}",
            )
        ids = [*context, *after][-self.max_length - 1 :]
        first = len(ids) - len(after) - 1  # the token whose logits tell of the first of `after`
        self._read(ids[:first])
        total, greedy = 0.0, True
        for start in range(first, len(ids) - 1, PIECE):
            stop = min(start + PIECE, len(ids) - 1)
            logits = self.decoder.run(np.array(ids[start:stop]))
            for row, target in zip(logits.astype(np.float64), ids[start + 1 : stop + 1], strict=True):
                total += float(row[target] - logsumexp(row))
                greedy = greedy and int(row.argmax()) == target
        return total, greedy

    def _read(self, context: list[int]) -> None:
        """Never with what follows: a graph that quantizes all it reads alike would mix the choices."""
        if context == self.context:
            self.decoder.rewind(len(context))
            return
        self.decoder.reset()
        for start in range(0, len(context), PIECE):
            self.decoder.run(np.array(context[start : start + PIECE]), last=True)
        self.context = context

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in windows as long as the model's context; each token is scored once."""
        windows, owners = [], []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(ids, self.prefix, self.max_length, 1):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (score, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += score
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy text up to the first stop string. Raises ConfigError for a task that samples."""
        prompts = [
            (text, normalize_gen_kwargs(given, NEW_TOKENS)) for text, given in (r.args for r in requests)
        ]
        for _, settings in prompts:
            if settings["do_sample"] and settings.get("temperature", 1.0) > 0:
                raise ConfigError("a task samples its text", found=settings, allowed="greedy decoding")
            if settings["max_gen_toks"] >= self.max_length:
                raise ConfigError(
                    "a task wants more new tokens than the model's context holds",
                    found=settings["max_gen_toks"],
                    allowed=f"less than {self.max_length}",
                )
        return [
            self._write(text, settings["max_gen_toks"], [stop for stop in settings["until"] if stop])
            for text, settings in _progress(prompts, "written")
        ]

    def _write(self, prompt: str, count: int, stops: list[str]) -> str:
        ids = self.tok_encode(prompt)[count - self.max_length :] or [self.prefix]
        self.decoder.capacity, self.context = len(ids) + count, None
        self.decoder.reset()
        tokens: list[int] = []
        text = ""
        written = continuation(self.decoder, ids, count, likeliest, self.anew)
        for token in written:
            if token in self.ends:
                break
            tokens.append(token)
            text = self.coder.decode(tokens)
            if any(stop in text for stop in stops):
                break
        for stop in stops:
            text = text.split(stop)[0]
        return text


def run_tasks(
    artifact: Path, names: Sequence[str], limit: int | None, include: Path | None, out: Path | None
) -> None:
    """Print lm-eval's table of the tasks `names`, of whose examples the first `limit` are asked; write `out`.

    Raises ArtifactError for a damaged artifact or one of another kind, ConfigError for wrong arguments,
    DataError where lm-eval cannot run a task.
    """
    if limit is not None and limit < 1:
        raise ConfigError("--limit is out of range", found=limit, allowed="at least 1")
    if include and not include.is_dir():
        raise ConfigError("--include names no folder", found=include, allowed="a folder of task YAMLs")
    if out and (out.exists() or not out.parent.is_dir()):
        what = "a file of that name exists" if out.exists() else f"no folder {out.parent}"
        raise ConfigError("--out cannot be written", found=what, allowed="a new file in a folder that exists")
    model = ArtifactLM(artifact)
    manager = _tasks(names, include)
    try:
        results = simple_evaluate(
            model=model, tasks=list(names), task_manager=manager, limit=limit, log_samples=False
        )
    except CompressError:
        raise
    except Exception as error:  # of the hub, of data sets, of what a task imports
        raise DataError(
            "lm-eval cannot run these tasks",
            found=f"{type(error).__name__}: {error}",
            next="--debug shows where; without the hub, --include a folder with tasks over local files",
        ) from error
    print(make_table(results))
    if results.get("groups"):
        print(make_table(results, "groups"))
    if out:
        record = {
            "artifact": model.shipped.name,
            "model_sha256": sha256_graphs(artifact),
            "lm_eval_version": version("lm_eval"),
            "limit": limit,
            "tasks": numbers(results),
        }
        out.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    """Task or group -> version, shots, examples and metrics, named metric,filter as lm-eval names them."""
    by_task = {}
    for name, metrics in results["results"].items():
        directions = results.get("higher_is_better", {}).get(name, {})
        values = {}
        for key, value in metrics.items():
            metric, comma, kind = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                values[key] = {
                    "value": _finite(value),
                    "stderr": _finite(metrics.get(f"{metric}_stderr,{kind}")),
                    "higher_is_better": directions.get(metric),
                }
        by_task[name] = {
            "version": results["versions"].get(name),
            "shots": results["n-shot"].get(name),
            "examples": results["n-samples"].get(name, {}).get("effective"),
            "metrics": values,
        }
    return by_task


def _tasks(names: Sequence[str], include: Path | None) -> Any:
    """Reading lm-eval's own tasks takes a minute: not done where the folder has all that are named."""
    if include:
        own = TaskManager(include_path=str(include), include_defaults=False)
        if set(names) <= set(own.all_tasks):
            return own
    every = TaskManager(include_path=str(include) if include else None)
    for name in names:
        if name not in every.all_tasks:
            near = get_close_matches(name, every.all_tasks, n=5)  # of fourteen thousand
            allowed = did_you_mean(name, near) if near else "what `lm-eval ls tasks` prints"
            raise ConfigError("unknown task", found=name, allowed=allowed)
    return every


def _prefix(artifact: Path, coder: Tokenizer, ends: frozenset[int]) -> int:
    """What a text without a context is scored after: the tokenizer's beginning of text, or its end."""
    settings = described(artifact / "tokenizer_config.json")
    for name in ("bos_token", "eos_token"):
        token = settings.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        number = coder.token_to_id(token) if token else None
        if number is not None:
            return int(number)
    if not ends:
        raise ArtifactError("the tokenizer names no token that begins or ends a text", found=artifact)
    return min(ends)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _progress(requests: Sequence[Any], what: str) -> Iterable[Any]:
    return track(requests, what, console=Console(stderr=True))
