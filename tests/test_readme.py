"""Every command that README.md and docs/ tell to type exists and composes; their links lead somewhere."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from compress.cli import main as cli
from compress.cli.run import swept_targets
from compress.config.compose import expand, load_config, options

ROOT = Path(__file__).resolve().parents[1]
# Under `make test`, a make of ours would otherwise take itself for a part of that one.
ENV = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def commands(text):
    """Lines of the ```sh blocks, continued ones joined, comments and prompts removed."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            if words and words[0] in ("compress", "make"):
                yield words


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    pytest.param(words, id=f"{page.stem}: {shlex.join(words)[:60]}")
    for page in PAGES
    for words in commands(page.read_text())
]


def check_run(words):
    flags = [word for word in words if word.startswith("-")]
    _, unknown = cli.parser("run").parse_known_args(["run", *flags])
    assert not unknown
    composed: set[str] = set()
    swept, several = swept_targets(words)
    for overrides in expand(
        [w for w in swept if w not in flags], sweep=bool(several) or bool({"-m", "--multirun"} & {*flags})
    ):
        if set(overrides) - composed:  # of a grid, points enough for each of its values
            load_config(overrides)
            composed.update(overrides)


def targets():
    makefile = (ROOT / "Makefile").read_text()
    return set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_commands_short_lines_and_links_that_lead_somewhere(page):
    text = page.read_text()
    assert list(commands(text))
    assert [line for line in text.splitlines() if len(line) > 130] == []
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = re.findall(r"`((?:compress|conf|tests|experiments)/[\w./]+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_readme_names_every_page_and_stays_short():
    text = (ROOT / "README.md").read_text()
    assert [
        page.name for page in PAGES if page.parent.name == "docs" and f"docs/{page.name}" not in text
    ] == []
    assert len(text[text.index("## Use it on your model") :].splitlines()) <= 60


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command(words):
    program, *rest = words
    if program == "make":
        assert {word for word in rest if "=" not in word} <= targets()
        given = dict(word.split("=", 1) for word in rest if "=" in word)
        assert set(given) <= {"PYTHON", "EXPERIMENT", "ARGS"}
        if "experiment" in rest:
            check_run(
                [f"experiment={given.get('EXPERIMENT', 'minilm')}", *shlex.split(given.get("ARGS", ""))]
            )
    elif rest[0] == "run":
        check_run(rest[1:])
    else:
        args, unknown = cli.parser(rest[0]).parse_known_args(rest)
        if args.command in ("search", "train"):
            check_run([word for word in unknown if not word.startswith("objective=")])
        else:
            assert not unknown
        assert getattr(args, "group", None) in {None, *options()}


def test_what_the_check_reads():
    text = (
        "```sh\n$ compress run a=1 \\\n  b=2  # why\nls\nmake test\n```\n```python\ncompress run no=1\n```\n"
    )
    assert list(commands(text)) == [["compress", "run", "a=1", "b=2"], ["make", "test"]]


def test_make_help_lists_every_target():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        env=ENV,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert listed == targets()


def test_make_hands_over_experiment_and_arguments():
    command = ["make", "--dry-run", "experiment", "EXPERIMENT=smollm2", "ARGS=prune=none"]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, check=True)
    assert "compress run experiment=smollm2 prune=none" in done.stdout


@pytest.mark.parametrize("experiment", options()["experiment"])
def test_every_experiment_composes(experiment):
    load_config([f"experiment={experiment}"])
