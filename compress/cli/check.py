"""`compress check ARTIFACT --max-drop 0.01`: what was measured of artifacts against limits, a gate for CI."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from compress.artifact import verify
from compress.cli.console import console
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
    """1 where an artifact is not intact or does not hold a limit."""
    limits = Limits(max_drop=args.max_drop, max_mb=args.max_mb, min_speedup=args.min_speedup)
    if limits == Limits():
        raise ConfigError("nothing to check", allowed="--max-drop 0.01, --max-mb 20, --min-speedup 3")
    results = {artifact: _checked(artifact, limits) for artifact in args.artifacts}
    for artifact, each in results.items():
        console.print(str(artifact), highlight=False, soft_wrap=True)
        for held in each:
            word = "[green]passed[/]" if held.passed else "[red]failed[/]"
            console.print(f"  {word} {held.name}: {held.told}", highlight=False, soft_wrap=True)
    if args.junit:
        _write_junit(results, args.junit)
    return int(any(not held.passed for each in results.values() for held in each))


def _checked(artifact: Path, limits: Limits) -> list[Held]:
    try:
        manifest = verify(artifact)
        return [Held(name="intact", passed=True, told=manifest.name), *holds(manifest.headline, limits)]
    except ArtifactError as error:
        return [Held(name="intact", passed=False, told=str(error))]


def _write_junit(results: dict[Path, list[Held]], path: Path) -> None:
    whole = JUnitXml("compress check")
    for artifact, each in results.items():
        suite = TestSuite(str(artifact))
        for held in each:
            case = TestCase(held.name, classname=str(artifact))
            case.system_out = held.told
            case.result = [] if held.passed else [Failure(held.told)]
            suite.add_testcase(case)
        whole.add_testsuite(suite)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write(str(path), pretty=True)
