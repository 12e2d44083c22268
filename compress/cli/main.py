"""The command line: one file a command, imported when it is the one that was typed."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from compress.errors import CompressError, ConfigError, did_you_mean

# compress/cli/<name>.py has add_arguments(parser) and run(args, rest): `rest` is what argparse does not know.
COMMANDS = {
    "run": "run an experiment: compress run experiment=minilm prune.keep.ffn=0.75",
    "search": "search the best within a budget: compress search experiment=minilm objective=latency",
    "train": "train an experiment's baseline: compress train experiment=fashion_resnet",
    "list": "experiments and options of each group",
    "verify": "check an artifact folder",
    "check": "hold artifacts against limits, for CI: compress check ARTIFACT --max-drop 0.01",
    "generate": 'text from a shipped language model: compress generate ARTIFACT --prompt "Once upon a time"',
    "chat": "talk with a shipped language model: compress chat ARTIFACT",
    "serve": "an OpenAI-compatible endpoint over a shipped language model: compress serve ARTIFACT",
    "lm-eval": "lm-evaluation-harness on a shipped model: compress lm-eval ARTIFACT --tasks arc_easy",
    "bench": "time ONNX files against each other: compress bench a.onnx b.onnx benchmark.workloads=[1x128]",
    "reproduce": "make an artifact again from its manifest and compare the files",
    "cache": "list finished stages; remove old ones",
    "compare": "finished runs in one table and one picture: compress compare RUN RUN",
    "report": "redraw the reports of a run or a sweep from its files",
}
TAKES_OVERRIDES = ("run", "search", "train", "bench")  # Hydra's group=option and group.key=value


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when done, 1 on an error that the user can mend, 130 on Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        whole = parser(given[0] if given else "")
        args, rest = whole.parse_known_args(given)
        args.given = given
        if rest and args.command not in TAKES_OVERRIDES:
            whole.error(f"unrecognized arguments: {' '.join(rest)}")
        for word in rest:
            if word.startswith("-"):
                raise ConfigError("unknown flag", found=word, allowed=did_you_mean(word, args.flags))
        from compress.system.disk import disk_errors

        with disk_errors(Path.cwd(), "this folder"):
            return int(args.function(args, rest) or 0)
    except KeyboardInterrupt:
        print("\ninterrupted: finished stages are kept, the next run takes up after them", file=sys.stderr)
        return 130
    except CompressError as error:
        if "--debug" in given:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 1


def parser(command: str) -> argparse.ArgumentParser:
    """The whole command line, where only `command` has declared its arguments: the others import nothing."""
    whole = argparse.ArgumentParser(
        prog="compress", description="prune, quantize and measure models: a checkpoint in, an ONNX file out"
    )
    commands = whole.add_subparsers(dest="command", required=True)
    for name, summary in COMMANDS.items():
        part = commands.add_parser(name, help=summary)
        part.add_argument("--debug", action="store_true", help="show tracebacks")
        if name == command:
            module = import_module(f"compress.cli.{name.replace('-', '_')}")
            module.add_arguments(part)
            part.set_defaults(function=module.run, flags=tuple(part._option_string_actions))
    return whole


if __name__ == "__main__":
    sys.exit(main())
