"""`compress reproduce ARTIFACT`: make it again out of its manifest, from nothing, and compare the files.

Other releases of the libraries write other bytes: where graphs differ, both are scored here, on the split
select, and the new one is as good where the paired interval of their difference lies within TOLERANCE.
"""

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from compress.artifact import Manifest, verify
from compress.cli.console import console
from compress.cli.preflight import check_sources
from compress.config.compose import from_plain, replaced
from compress.config.data import Split
from compress.config.run import RunConfig
from compress.config.target import LocalTarget
from compress.data import HeldOut, load_splits
from compress.errors import ArtifactError
from compress.evaluate import metrics_of
from compress.graph import SUFFIX
from compress.judge.assemble import Built, BuiltVariant, environment, pack
from compress.metrics.quality import Quality, Scored
from compress.schema.estimates import Estimate, Score
from compress.stages.runner import StageRunner
from compress.stages.store import Store
from compress.system.disk import sha256_file
from compress.targets import open_target

TOLERANCE = 0.01  # of what the shipped graph scores
MEASURED = ("README.md", "manifest.json", "SHA256SUMS")  # hold times, which no second run repeats
_CARD = "Made by `compress reproduce`, to be compared with another artifact; nothing was measured.\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path)


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Make an artifact again and compare; 0 where its graphs are the same to the last bit, or as good where
    other releases made them."""
    manifest = verify(args.artifact)
    check_sources(config_of(manifest))
    folder = Path(f"outputs/{manifest.name}/reproduced-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
    comparison = reproduce(args.artifact, folder, console)
    console.print(table(comparison))
    console.print(f"{verdict(comparison)}: {folder / 'artifact'}", soft_wrap=True)
    return 0 if comparison.same or comparison.as_good else 1


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How the graph made again does beside the shipped one, paired example by example."""

    metric: str
    again: Score
    drop: Estimate  # positive where the new one is worse

    @property
    def shipped(self) -> float:
        return self.again.value + (self.drop.value if self.again.higher_is_better else -self.drop.value)

    @property
    def limit(self) -> float:
        return TOLERANCE * abs(self.shipped)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    files: dict[str, str]  # path -> same, differs, missing, new or not compared
    splits: dict[str, str] = field(default_factory=dict)  # name -> the same words
    surroundings: tuple[str, ...]  # what differs between this machine and the first one
    releases: tuple[str, ...] = ()  # those of it that are releases of libraries, or options they took away
    scores: Scores | None = None  # on select, where graphs differ

    @property
    def same(self) -> bool:
        """Whether the model is the same to the last bit, as GGUF too where it ships so."""
        return all(word == "same" for name, word in self.files.items() if _is_model(name))

    @property
    def as_good(self) -> bool:
        """Whether other releases made another file that scores alike, on the same examples."""
        if not self.releases or self.scores is None or "differs" in self.splits.values():
            return False
        low, high = self.scores.drop.ci95
        return -self.scores.limit <= low and high <= self.scores.limit


def config_of(manifest: Manifest) -> RunConfig:
    """The configuration of the run, for the CPU it was made for. Raises ArtifactError without options."""
    if not manifest.options:
        raise ArtifactError(
            "the manifest does not say which options the run had",
            next="use the release of the toolkit that wrote the artifact, or its README.md's command",
        )
    config = from_plain(manifest.config, manifest.options)
    config.target = config.target.built_for(list(map(str, manifest.environment.get("isa_flags", ()))))
    return config


def reproduce(artifact: Path, folder: Path, console: Console) -> Comparison:
    """Make `artifact` again in `folder / "artifact"` and compare.

    No finished stage is reused, only downloads are. Speed is not measured and test not looked at.
    Raises ArtifactError for an artifact that is damaged or whose run makes another variant today.
    """
    import torch  # takes seconds

    from compress.pipeline import as_gguf, build

    manifest = verify(artifact)
    config = config_of(manifest)
    threads = manifest.environment.get("torch_threads")
    torch.set_num_threads(threads or torch.get_num_threads())
    now = environment(open_target(LocalTarget()))  # nothing is timed: the run's own may be away
    gone = [
        f"{group}={manifest.options[group]}: now {name}" for group, name in replaced(manifest.options).items()
    ]
    releases = (*gone, *other_packages(manifest.environment, now))
    surroundings = (*gone, *differences(manifest.environment, now))
    for line in surroundings:
        console.print(f"[yellow]not as before:[/] {line}", highlight=False)
    if getattr(config.recover, "max_minutes", None) is not None:
        console.print("[yellow]recover.max_minutes[/] ends training by the clock, which no run repeats")

    store = folder / "store"
    try:
        runner = StageRunner(Store(store), console, config.model.task)
        built = build(config, runner)
        wanted = manifest.headline["variant"]
        again = next((variant for variant in built.variants if variant.name == wanted), None)
        if again is None:
            raise ArtifactError(
                "the run makes no variant of that name any more",
                found=", ".join(variant.name for variant in built.variants),
                allowed=wanted,
            )
        same_threads = {**now, "threads": manifest.environment.get("threads")}
        unmeasured = replace(manifest, environment=same_threads, headline={"variant": wanted}, files={})
        pack(again, folder / "artifact", _CARD, unmeasured, as_gguf(config, again.checkpoint, runner))
        comparison = Comparison(
            files=compare(manifest.files, sums(folder / "artifact")),
            splits=compare(
                manifest.splits,
                {name: split.fingerprint for name, split in load_splits(built.splits.path).facts().items()},
            ),
            surroundings=surroundings,
            releases=releases,
        )
        if comparison.same:
            return comparison
        return replace(comparison, scores=_scores(config, built, again, artifact, store))
    finally:
        shutil.rmtree(store, ignore_errors=True)


def _scores(config: RunConfig, built: Built, again: BuiltVariant, artifact: Path, scratch: Path) -> Scores:
    """Of the primary metric, or of the first of quality where the primary one is a distance to the dense
    model: two graphs may be as far from it and differ."""
    held_out, metrics = (
        HeldOut(load_splits(built.splits.path), Split.select, None),
        metrics_of(config.evaluate),
    )
    student = again.checkpoint.path
    dense = Scored(built.variants[0].graph.path, built.dense.path, scratch / "scores_dense")
    shipped = Scored(artifact, student, scratch / "scores_shipped")
    new = Scored(again.graph.path, student, scratch / "scores_again")
    for model in (dense, shipped, new):
        model.scores.mkdir()
        metrics.score(config.evaluate, model, dense, held_out)
    found: Quality = metrics.compare(config.evaluate, new, shipped, held_out)[0]
    metric = found.primary if found.primary in found.quality else next(iter(found.quality), found.primary)
    value = {**found.quality, **found.fidelity}[metric]
    return Scores(metric=metric, again=value, drop=found.drop_from_dense[metric])


def sums(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


def compare(expected: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """A word for every name of either; their values are digests."""
    words = {}
    for name in sorted({*expected, *found}):
        if name in MEASURED:
            words[name] = "not compared"
        elif name not in found:
            words[name] = "missing"
        elif name not in expected:
            words[name] = "new"
        else:
            words[name] = "same" if expected[name] == found[name] else "differs"
    return words


def _is_model(name: str) -> bool:
    """Whether a file of an artifact, by its path there, is a graph, weights beside one, or a GGUF file."""
    return SUFFIX in name or name.endswith(".gguf")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What of a run's environment is another one now, a line each."""
    for name in ("cpu", "python", "system"):
        if then.get(name) != now.get(name):
            yield f"{name}: {then.get(name)}, now {now.get(name)}"
    before, after = set(then.get("isa_flags") or ()), set(now.get("isa_flags") or ())
    for word, flags in (("missing now", before - after), ("new", after - before)):
        if flags:
            yield f"CPU flags {word}: {' '.join(sorted(flags))}"
    yield from other_packages(then, now)
    source, ours = then.get("git") or {}, now.get("git") or {}
    if source.get("commit") != ours.get("commit"):
        yield f"commit of compress: {source.get('commit')}, now {ours.get('commit')}"
    for word, git in (("it was made", source), ("this is", ours)):
        if git.get("dirty"):
            yield f"{word} with changes to compress that are in no commit"


def other_packages(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    packages, installed = then.get("packages") or {}, now.get("packages") or {}
    for name in sorted({*packages, *installed}):
        if packages.get(name) != installed.get(name):
            yield f"{name}: {packages.get(name)}, now {installed.get(name)}"


def verdict(comparison: Comparison) -> str:
    """One line: what the comparison comes to."""
    if comparison.same:
        return "[green]the same model[/]"
    facts = [f"{name} {word}" for name, word in comparison.splits.items() if word != "same"]
    if facts:
        facts = [f"splits: {', '.join(facts)}"]
    if comparison.scores is not None:
        of, (low, high) = comparison.scores, comparison.scores.drop.ci95
        facts.append(
            f"{of.metric} on select {of.again.value:.4f}, shipped {of.shipped:.4f}, worse by {low:.4f} to "
            f"{high:.4f} on {of.again.n} paired examples, as good within {of.limit:.4f}"
        )
    word = "[red]another model[/]"
    if comparison.as_good:
        word = "[yellow]not the same bytes, by other releases, but as good[/]"
    return f"{word} ({'; '.join(facts)})"


_STYLES = {"same": "green", "differs": "red", "missing": "red", "new": "red", "not compared": "dim"}


def table(comparison: Comparison) -> Table:
    drawn = Table("file", "sha256", caption="not compared: holds measured times")
    for name, word in comparison.files.items():
        drawn.add_row(name, f"[{_STYLES[word]}]{word}[/]")
    return drawn
