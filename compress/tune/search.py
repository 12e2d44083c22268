"""One question of `target.tune` after the other: candidates are built, checked and timed, and one is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from compress.benchmark import benchmark, check_on_target
from compress.benchmark.speed import Comparison, load_comparisons
from compress.benchmark.timing import ROUNDS
from compress.config.run import RunConfig
from compress.config.target import MachineTarget, OpenvinoTarget, Precision, TargetConfig
from compress.errors import CompressError
from compress.judge.assemble import Built, BuiltVariant
from compress.metrics.quality import Quality, load_quality
from compress.rewrite import INEXACT, can_be_rewritten, rewritten
from compress.schema.estimates import Estimate
from compress.schema.speed import Tried
from compress.stages.runner import StageRunner
from compress.stages.store import Entry
from compress.targets import open_target
from compress.tune.candidates import OPERATORS, THREADS, Candidate, operators, together
from compress.tune.choice import enough_threads, fastest_first, too_bad, why_not_faster, why_not_held

KEPT, DENSE = "kept", "dense"  # KEPT: what the candidates of a job are timed beside
ROUNDS_OF_THREADS = 3  # blocks of a process: what differs is how the threads of fresh processes fare
REASON = 400  # characters
Make = Callable[[RunConfig, StageRunner], Built]
OnSelect = Callable[[RunConfig, Built, StageRunner, str], Entry]


@dataclass
class Search:
    """What was tried so far. On a dry run, what is not stored is not chosen."""

    asked: RunConfig
    make: Make  # the variants of a configuration
    on_select: OnSelect  # the quality of the last of them, under a label
    runner: StageRunner
    tried: list[Tried] = field(default_factory=list)
    made: dict[str, Built] = field(default_factory=dict)  # by configuration
    dense_threads: int = 0  # with which dense is fastest; 0 where that was not asked

    def built(self, config: RunConfig) -> Built:
        """Quietly: most of it is what the run has said already. Made once."""
        if repr(config) in self.made:
            return self.made[repr(config)]
        quiet = replace(self.runner, console=Console(quiet=True), stages=[])
        built = self.make(config, quiet)
        self.runner.stages += [stage for stage in quiet.stages if not stage.reused]
        self.made[repr(config)] = built
        return built

    def last(self, config: RunConfig) -> BuiltVariant:
        return self.built(config).variants[-1]

    def best(self, kept: RunConfig, candidates: Sequence[Candidate]) -> RunConfig:
        """The fastest candidate that may take the place of what is kept; else that."""
        winners = self.winners(kept, candidates)
        return self.keep(winners[0]) if winners else kept

    def best_operators(self, kept: RunConfig, facts: Mapping[str, Any]) -> RunConfig:
        """Likewise of rewritten graphs; where several are faster, all of them against the fastest."""
        graph = self.last(kept).graph.path
        if not graph.is_dir() or not can_be_rewritten(graph):
            return kept
        winners = self.winners(kept, operators(kept, facts, INEXACT))
        if not winners:
            return kept
        fastest = self.keep(winners[0])
        return self.best(fastest, [together(fastest, winners[1:])]) if winners[1:] else fastest

    def keep(self, candidate: Candidate) -> RunConfig:
        """Note that it is kept."""
        for place, row in enumerate(self.tried):
            if (row.kind, row.name) == (candidate.kind, candidate.name):
                self.tried[place] = replace(row, kept=True)
        return candidate.config

    def winners(self, kept: RunConfig, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that may take the place of what is kept, the fastest first; all are noted."""
        passing = {candidate.name: candidate for candidate in candidates if self.passes(kept, candidate)}
        found = self.timed(kept, list(passing.values()))
        drops: dict[str, Estimate] = {}
        reasons = {name: why_not_faster(found[name]) for name in found}
        for name in fastest_first(found):
            if not passing[name].exact:
                reasons[name], drops[name] = self.judged(passing[name].config, f"select {name}")
        self.tried += [
            Tried(
                kind=passing[name].kind,
                name=name,
                beside=KEPT,
                speedup=each.speedup,
                overall=each.overall,
                drop=drops.get(name),
                reason=reasons[name],
            )
            for name, each in found.items()
        ]
        return [passing[name] for name in fastest_first(found) if not reasons[name]]

    def passes(self, kept: RunConfig, candidate: Candidate) -> bool:
        """Whether it can be built, has something to rewrite, and computes on the target what it is to."""
        try:
            variant, of = self.last(candidate.config), candidate.kind == OPERATORS
            if of and variant.graph.path.is_dir() and not rewritten(variant.graph.path):
                return False
            self.check(
                candidate.config, variant, candidate.name, self.last(kept) if of and candidate.exact else None
            )
        except CompressError as error:
            self.refuse([candidate], error)
            return False
        return True

    def check(
        self, config: RunConfig, variant: BuiltVariant, name: str, like: BuiltVariant | None = None
    ) -> None:
        """As before every benchmark. Raises GateError."""
        more: dict[str, Any] = {"like": like.graph} if like else {}
        self.runner.stage(
            "parity",
            check_on_target,
            config.target,
            name=variant.name if like is None else name,
            workloads=config.benchmark.workloads,
            checkpoint=variant.checkpoint,
            splits=self.built(config).splits,
            graph=variant.graph,
            label=f"parity {name}",
            **more,
            **there(config.target),
        )

    def refuse(self, candidates: Sequence[Candidate], error: CompressError) -> None:
        said = "; ".join(line.strip() for line in str(error).splitlines())[:REASON]
        self.tried += [Tried(kind=each.kind, name=each.name, beside=KEPT, reason=said) for each in candidates]

    def timed(self, kept: RunConfig, candidates: Sequence[Candidate]) -> dict[str, Comparison]:
        """By name, how fast the candidates are beside what is kept."""
        if not candidates:
            return {}
        runs = {KEPT: (self.last(kept), kept.target)}
        runs |= {each.name: (self.last(each.config), each.config.target) for each in candidates}
        try:
            folder = self.job(runs, f"time {candidates[0].kind}", ROUNDS)
        except CompressError as error:
            self.refuse(candidates, error)
            return {}
        if not folder.is_dir():  # on a dry run
            return {}
        names = [each.name for each in candidates]
        return dict(zip(names, load_comparisons(folder, [(KEPT, name) for name in names]), strict=True))

    def job(self, runs: Mapping[str, tuple[BuiltVariant, TargetConfig]], label: str, rounds: int) -> Path:
        """The folder of one benchmark of these variants, each on its target; the first is the baseline."""
        first = next(iter(runs.values()))[1]
        entry = self.runner.stage(
            "benchmark",
            benchmark,
            first,
            config=self.asked.benchmark,
            graphs={name: variant.graph for name, (variant, _) in runs.items()},
            checkpoints={name: variant.checkpoint for name, (variant, _) in runs.items()},
            parity={},
            splits=self.built(self.asked).splits,
            targets={name: target for name, (_, target) in runs.items()},
            rounds=rounds,
            label=label,
            **there(first),
        )
        return entry.path

    def judged(self, config: RunConfig, label: str) -> tuple[str, Estimate]:
        """Why the quality of a configuration on select is too bad, if so, and its drop."""
        asked, other = self.quality(self.asked, "select asked"), self.quality(config, label)
        limit = self.asked.budget.max_quality_drop
        return too_bad(asked, other, limit), other.drop_from_dense[other.primary]

    def quality(self, config: RunConfig, label: str) -> Quality:
        """On select; of what the target computes where that is in shorter floats, and with open shapes, since
        texts have many."""
        target, evaluate = config.target, config.evaluate
        if isinstance(target, OpenvinoTarget):
            target = replace(target, fixed_shapes=False)
            if target.precision is not Precision.f32:
                evaluate = replace(evaluate, on_target=True)
        config = replace(config, target=target, evaluate=evaluate)
        return load_quality(self.on_select(config, self.built(config), self.runner, label).path)

    def threads(self, kept: RunConfig, counts: Sequence[int]) -> RunConfig:
        """With the threads that are enough for what is kept; those of dense are noted."""
        if len(counts) < 2:
            return kept
        dense, last = self.built(kept).variants[0], self.last(kept)
        runs = {name_of(KEPT, n): (last, at(kept, n)) for n in counts}
        if not dense.not_timed:
            runs |= {name_of(DENSE, n): (dense, at(kept, n)) for n in counts}
        folder = self.job(runs, "time threads", ROUNDS_OF_THREADS)
        if not folder.is_dir():
            return kept

        def compare(one: int, other: int, model: str = KEPT) -> Comparison:
            return load_comparisons(folder, [(name_of(model, one), name_of(model, other))])[0]

        enough, beside = enough_threads(counts, compare)
        rows = [self.row(KEPT, n, beside[n], compare(beside[n], n), n == enough) for n in beside]
        self.tried += rows
        if dense.not_timed:
            return replace(kept, target=at(kept, enough))
        of_dense = {n: compare(counts[0], n, DENSE) for n in counts[1:]}
        self.dense_threads = max(of_dense, key=lambda n: of_dense[n].overall.value)
        if of_dense[self.dense_threads].overall.value < 1:
            self.dense_threads = counts[0]
        self.tried += [
            self.row(DENSE, n, counts[0], each, n == self.dense_threads) for n, each in of_dense.items()
        ]
        return replace(kept, target=at(kept, enough))

    def row(self, model: str, count: int, beside: int, found: Comparison, kept: bool) -> Tried:
        reason = "" if model == DENSE else why_not_held(found)
        return Tried(
            kind=THREADS,
            name=name_of(model, count),
            beside=name_of(model, beside),
            speedup=found.speedup,
            overall=found.overall,
            kept=kept,
            reason=reason,
        )


def at(config: RunConfig, threads: int) -> MachineTarget:
    """The target with so many threads."""
    assert isinstance(config.target, MachineTarget)
    return replace(config.target, threads=threads)


def name_of(model: str, threads: int) -> str:
    return f"{model}, {threads} thread{'s' * (threads > 1)}"


def there(target: TargetConfig) -> dict[str, Any]:
    opened = open_target(target)
    return {"identity": opened.facts(), "lock": opened.lock}
