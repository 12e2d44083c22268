"""What a head answers."""

from enum import Enum

UNKNOWN = -100  # in place of the number of a class that nobody knows, as torch ignores it


class Kind(Enum):
    """Of the last axis of what a head answers."""

    classes = "classes"  # logits of which one is right
    labels = "labels"  # logits of each by itself
    values = "values"  # what is wanted
