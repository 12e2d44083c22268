"""`compress check ARTIFACT --max-drop 0.01`: what was measured of artifacts against limits, a gate for CI."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from compress.artifact import verify
from compress.cli.console import console, foreign, harmless
from compress.errors import ArtifactError, ConfigError
from compress.judge.limits import Held, Limits, holds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifacts", type=Path, nargs="+", metavar="ARTIFACT")
    parser.add_argument(
        "--max-drop", type=float, help="of the primary metric, as a share of the dense model's"
    )
    parser.add_argument("--max-mb", type=float, help="of the graph that ships")
    parser.add_argument("--min-speedup", type=float, help="over the dense model, on every workload")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit's XML, too")


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """1 where an artifact is not intact or does not hold a limit.

    Raises ConfigError for no limit or one that is none, and for a file that cannot be written.
    """
    limits = Limits(max_drop=args.max_drop, max_mb=args.max_mb, min_speedup=args.min_speedup)
    _refuse_no_limits(limits)
    if args.junit:
        _refuse_inside(args.junit, args.artifacts)
    results = {artifact: _checked(artifact, limits) for artifact in args.artifacts}
    for artifact, each in results.items():
        console.print(foreign(str(artifact)), highlight=False, soft_wrap=True)
        for held in each:
            word = "[green]passed[/]" if held.passed else "[red]failed[/]"
            told = foreign(f"{held.name}: {held.told}")
            console.print(f"  {word} {told}", highlight=False, soft_wrap=True)
    if args.junit:
        _write_junit(results, args.junit)
    return int(any(not held.passed for each in results.values() for held in each))


def _refuse_no_limits(limits: Limits) -> None:
    given = {name: limit for name, limit in asdict(limits).items() if limit is not None}
    if not given:
        raise ConfigError("nothing to check", allowed="--max-drop 0.01, --max-mb 20, --min-speedup 3")
    for name, limit in given.items():
        if not 0 <= limit < inf:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} is no limit", found=limit, allowed="a number, 0 or more")


def _refuse_inside(file: Path, artifacts: Sequence[Path]) -> None:
    """Since an artifact with a file more is not intact."""
    for artifact in artifacts:
        if artifact.resolve() in file.resolve().parents:
            raise ConfigError(
                "the results would lie in an artifact, which would not be intact any more",
                found=f"--junit {file}",
                allowed="a file elsewhere",
            )


def _checked(artifact: Path, limits: Limits) -> list[Held]:
    try:
        manifest = verify(artifact)
    except ArtifactError as error:
        return [Held(name="intact", passed=False, told=str(error))]
    return [Held(name="intact", passed=True, told=manifest.name), *holds(manifest.headline, limits)]


def _write_junit(results: dict[Path, list[Held]], path: Path) -> None:
    whole = JUnitXml("compress check")
    for artifact, each in results.items():
        suite = TestSuite(harmless(str(artifact)))
        for held in each:
            case = TestCase(harmless(held.name), classname=harmless(str(artifact)))
            case.system_out = harmless(held.told)
            case.result = [] if held.passed else [Failure(harmless(held.told))]
            suite.add_testcase(case)
        whole.add_testsuite(suite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(str(path), pretty=True)
    except OSError as error:
        raise ConfigError(
            "the results cannot be written",
            found=f"--junit {path}: {error.strerror}",
            allowed="a file in a folder you may write to",
        ) from None
