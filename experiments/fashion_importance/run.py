"""Accuracy of the pruned ResNet before recovery, by importance and by share of the products that stays.

    python experiments/fashion_importance/run.py        # from the repository; 20 minutes of one core

Writes results.csv beside this file: one row a point, on the 10,000 published test images, in torch.
"""

import csv
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from compress import tasks
from compress.config.compose import load_config
from compress.config.prune import ChannelImportance, ChannelPrune, ChannelScope
from compress.data import open_splits
from compress.data.images import load_images
from compress.prune import prune
from compress.tasks.image_classification.model import ImageClassifier

HERE = Path(__file__).parent
SHARES = (0.75, 0.5, 0.25)
BEST = tuple(ChannelImportance[name] for name in ("magnitude", "taylor", "hessian", "activation"))


def main() -> None:
    config = load_config(["experiment=fashion_resnet"])
    assert isinstance(config.prune, ChannelPrune)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tasks.import_model(config.model, made(folder / "dense"))
        open_splits(config.data, folder / "splits")
        test = load_images(folder / "splits").test
        dense = answers(folder / "dense", test.images)
        rows = [row("dense", "", 0, 1.0, dense, dense, test.labels)]
        points = [(each, "local", 1, macs) for macs in SHARES for each in ChannelImportance]
        points += [(each, scope, 1, 0.5) for scope in ("global", "isomorphic") for each in BEST]
        points += [(each, scope, 5, 0.5) for scope in ("local", "global") for each in BEST]
        for number, (importance, scope, steps, macs) in enumerate(points):
            cut = replace(
                config.prune, importance=importance, scope=ChannelScope[scope], steps=steps, macs=macs
            )
            prune(cut, folder / "dense", folder / "splits", made(folder / str(number)))
            found = answers(folder / str(number), test.images)
            rows.append(row(importance.value, scope, steps, macs, found, dense, test.labels))
            print(rows[-1], flush=True)
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@torch.no_grad()
def answers(checkpoint: Path, images: np.ndarray) -> np.ndarray:
    model = ImageClassifier.open(checkpoint)
    return np.concatenate([model.run(batch).argmax(1).numpy() for batch in model.batches(images, 250)])


def row(
    importance: str,
    scope: str,
    steps: int,
    macs: float,
    found: np.ndarray,
    dense: np.ndarray,
    labels: np.ndarray,
) -> dict[str, str]:
    right = int((found == labels).sum())
    interval = binomtest(right, len(labels)).proportion_ci(method="wilson")
    return {
        "importance": importance,
        "scope": scope,
        "steps": str(steps),
        "macs": f"{macs:g}",
        "accuracy": f"{right / len(labels):.4f}",
        "low": f"{interval.low:.4f}",
        "high": f"{interval.high:.4f}",
        "agreement_with_dense": f"{(found == dense).mean():.4f}",
    }


if __name__ == "__main__":
    main()
