"""Fine-tuning of a pruned classifier of images, taught by the dense one."""

from pathlib import Path

from compress.config.recover import Finetune
from compress.data import load_images
from compress.tasks.image_classification.model import ImageClassifier
from compress.training.supervised import ClassifierTraining, write_history


def finetune(config: Finetune, student: Path, teacher: Path, splits: Path, out: Path, scratch: Path) -> None:
    """Train `student` on the train split; the epoch that does best on select is kept."""
    model = ImageClassifier.open(student)
    dense = ImageClassifier.open(teacher) if config.distill else None
    history = ClassifierTraining(config, model, dense, load_images(splits)).run(scratch)
    taught = f", {config.distill:.0%} of the loss from the dense model's answers" if dense else ""
    model.save(out, model.facts.after(f"fine-tuned for {len(history.steps)} epochs{taught}"))
    write_history(history, out)
