"""A baseline for a task of texts: an encoder with a new head, both trained on labels."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor
from torch.func import functional_call

from compress import tasks
from compress.config.recover import TrainHead
from compress.data import load_splits
from compress.data.record import Record
from compress.errors import DataError, ModelError
from compress.models.checkpoint import facts_of, read_config, write_facts
from compress.models.device import chosen, moved
from compress.models.loading import from_folder
from compress.models.tokenizer import Tokens
from compress.sources import fetch
from compress.stages.result import write_result
from compress.tasks.base import tensors
from compress.tasks.text.batching import bucketed, in_batches, spread_queries
from compress.tasks.text.candidates import fewer_candidates
from compress.tasks.text.head_training import class_weights
from compress.tasks.text.heads import HeadedModel
from compress.tasks.text.training import SELECT_BATCH, SELECT_ROWS
from compress.training.distillation import Distillation
from compress.training.precision import wants_bfloat16


def fit_baseline(
    config: TrainHead,
    builder: str,
    kwargs: Mapping[str, Any],
    facts: Mapping[str, str],
    splits: Path,
    out: Path,
    scratch: Path,
) -> None:
    """Train what `builder`, a class of transformers ("transformers:AutoModelFor..."), makes of the encoder,
    and write it as a checkpoint; `facts`: task, source, base_model, license.

    Raises DataError for data without labels to train on, ModelError for an encoder that lacks weights.
    """
    data = load_splits(splits)
    start = scratch / "start"
    if not (start / "compress.json").is_file():
        begin(config, builder, {**kwargs, **answers_of(data)}, start)
        write_facts(facts_of(facts), start)
    model = cast(HeadedModel, tasks.load(start, attention="eager"))
    weights = class_weights(data) if config.balanced else None
    training = HeadTraining(config, model, data.train.examples, data.select.examples, weights)
    history = training.run(scratch)
    seen = f"{history.step} steps, {history.tokens / 1e6:.1f} M tokens"
    model.save(out, model.facts.after(f"trained on {len(data.train.examples)} examples for {seen}"))
    write_result(out, facts={"training": {"steps": history.steps, "select_loss": history.select}})


def answers_of(data: Any) -> dict[str, Any]:
    """What config.json says of the answers to such examples; raises DataError where train has none."""
    examples: Sequence[Record] = data.train.examples
    first = next(
        (each for each in examples if each.labels or each.tags or each.relevance or each.answers), None
    )
    if first is None:
        raise DataError("the train split has no labels", found=f"{len(examples)} examples")
    if first.relevance:
        return {"num_labels": 1}
    names = dict(enumerate(data.names))
    described = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    if first.tags:
        return described
    if not first.labels:  # of answers within a context
        return {}
    if not names:
        return {"num_labels": 1, "problem_type": "regression"}
    several = len(first.labels) == len(names) > 1
    return {**described, "problem_type": f"{'multi' if several else 'single'}_label_classification"}


def begin(config: TrainHead, builder: str, described: Mapping[str, Any], out: Path) -> None:
    """Write the encoder with a head of random weights, which the seed fixes, and its tokenizer."""
    encoder = fetch(config.encoder, config.sha256)
    package, _, name = builder.partition(":")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        whole, info = from_folder(
            getattr(import_module(package), name),
            encoder,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            **described,
        )
    inside = f"{whole.base_model_prefix}."
    missing = [each for each in info["missing_keys"] if each.startswith(inside) and "pooler" not in each]
    if missing:
        raise ModelError(
            f"weights are missing in {encoder}",
            found=f"{len(missing)} tensors, e.g. {min(missing)}",
            allowed=f"every tensor of the {read_config(encoder).get('model_type')} but its head",
            next="fetch the encoder again",
        )
    whole.save_pretrained(out)
    from_folder(transformers.AutoTokenizer, encoder).save_pretrained(out)


class HeadTraining(Distillation):
    """Without a teacher, with dropout: the loss of the labels. Embedding tables stay as they are."""

    score_name, higher_is_better = "loss", False  # of the labels of select
    start_counts = False  # a head of random weights is no baseline

    def __init__(
        self,
        config: TrainHead,
        model: HeadedModel,
        train: Sequence[Record],
        select: Sequence[Record],
        weights: Tensor | None = None,
    ) -> None:
        """`weights`: of the classes, see `losses.label_error`."""
        self.config, self.model, self.class_weights = config, model, weights
        self.device = chosen(config.device)
        self.dtype = torch.bfloat16 if wants_bfloat16(config.precision, self.device) else torch.float32
        model.module.to(self.device)
        encode = model.processor.encode
        self.rows = encode(fewer_candidates(train, config.candidates), config.max_length)
        held_out = encode(fewer_candidates(select, config.candidates), config.max_length)
        labelled = [row for row in held_out if row.label]
        self.select = in_batches(spread_queries(labelled, SELECT_ROWS), SELECT_BATCH)
        for name, parameter in model.module.named_parameters():
            parameter.requires_grad_("embed" not in name)
        trained = [each for each in model.module.parameters() if each.requires_grad]
        super().__init__(config, model, trained, beta2=0.999)

    def epoch(self, seed: int) -> list[list[int]]:
        return bucketed(self.rows, self.config.batch_tokens, seed)

    def learn(self, rows: list[int]) -> tuple[float, int]:
        self.module.train()
        # Dropout of a step is the same in a training that was resumed.
        torch.manual_seed(self.plan.seed * 1_000_003 + self.history.step)
        batch = [self.rows[row] for row in rows]
        error = self._error(batch)
        return self.backward(error), sum(map(len, batch))

    def score(self) -> float:
        self.module.eval()
        total = sum(len(rows) * float(self._error(rows)) for rows in self.select)
        return total / sum(map(len, self.select))

    def _error(self, rows: Sequence[Tokens]) -> Tensor:
        inputs = moved(tensors(self.model.processor.feeds(rows)), self.device)
        labels = self.model.labels(rows)
        # Weights that are cast, in place of what flows, keep residuals and softmax in bfloat16, too: faster.
        weights = {name: each.to(self.dtype) for name, each in self.module.named_parameters()}
        given = functional_call(self.module, weights, kwargs=inputs)
        answers = self.model.answers(given, inputs["attention_mask"])
        if labels is None:  # a batch of none, to which every answer is right
            return 0.0 * answers.float().sum()
        of_classes = None if self.class_weights is None else self.class_weights.to(self.device)
        return self.model.label_error(answers.float(), labels.to(self.device), of_classes)
