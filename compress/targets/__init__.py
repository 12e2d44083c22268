"""Where models are timed, and with what runtime: one file a kind of target."""

from compress.targets.base import Target, open_target

__all__ = ["Target", "open_target"]
