"""What ships beside the graph: of code of its own, which no other export depends on."""

from pathlib import Path

from compress.config.ship import GgufFile


def write_beside(config: GgufFile, checkpoint: Path, out: Path) -> None:
    """The checkpoint as a GGUF file in `out`, proven to hold what the checkpoint does."""
    from compress.export.gguf import export_gguf  # takes torch along

    export_gguf(config, checkpoint, out)
