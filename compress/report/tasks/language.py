"""What the reports say of a language model: how it reads held-out text, and what it writes by itself."""

from collections.abc import Iterator

from compress.report.format import MISSING, interval, number, percent
from compress.report.section import Section, best_variant
from compress.schema.details import LanguageDetails
from compress.schema.report import Report, Variant


def sections(report: Report) -> list[Section]:
    return [_reading(report), _writing(report), _continuations(report)]


def summary(report: Report) -> list[str]:
    """Nothing that the table does not say."""
    return []


def _reading(report: Report) -> Section:
    """A row per domain and variant."""
    rows = [
        (
            domain.name,
            variant.name,
            str(domain.documents),
            str(domain.tokens),
            number(domain.bytes / domain.tokens),
            _score(variant, f"bits_per_byte_{domain.name}"),
            _score(variant, f"perplexity_{domain.name}"),
        )
        for variant, details in _read(report)
        for domain in details.domains
    ]
    rows.sort(key=lambda row: _domains(report).index(row[0]))
    return Section(
        anchor="reading",
        title="Held-out text",
        lines=tuple(_how(report)),
        header=("domain", "variant", "documents", "tokens", "bytes a token", "bits per byte", "perplexity"),
        rows=rows,
    )


def _how(report: Report) -> Iterator[str]:
    for _, details in _read(report)[:1]:
        yield (
            f"Documents in a row, in windows of {details.context} tokens, {details.stride} from one to the "
            "next; a token is scored once. Intervals are over documents."
        )
    few = [(variant, details) for variant, details in _read(report) if _other_tokens(report, variant)]
    for variant, details in few:
        yield (
            f"{variant.name} has other tokens than the dense model: only bits per byte compares. It was "
            f"compared with dense, among its own tokens, at the {percent(details.compared_share)} of the "
            "places where a token ends under both."
        )


def _other_tokens(report: Report, variant: Variant) -> bool:
    return any(
        f"perplexity_{domain.name}" not in variant.quality
        for domain in (variant.language.domains if variant.language else ())
    )


def _writing(report: Report) -> Section:
    """A row per variant: how near it stays to the dense model, and how often it repeats itself."""
    rows = []
    for variant, details in _read(report):
        written = details.continuations
        shared = (
            f"{_mean([text.shared_tokens for text in written])} of {_mean([text.tokens for text in written])}"
        )
        rows.append(
            (
                variant.name,
                _score(variant, "kl"),
                _score(variant, "top1_agreement"),
                shared if written else MISSING,
                percent(sum(text.variant_repeated for text in written) / len(written))
                if written
                else MISSING,
            )
        )
    prompts = max((len(details.continuations) for _, details in _read(report)), default=0)
    line = (
        f"Continuations: of {prompts} beginnings of test documents, the likeliest token each time. Shared "
        "are the leading tokens that are the dense model's; repeated are runs of 4 tokens that had occurred "
        "before in the same continuation."
    )
    return Section(
        anchor="writing",
        title="Nearness to the dense model",
        lines=(line,) if prompts else (),
        header=("variant", "KL, nats", "same likeliest token", "shared tokens, mean", "repeated, mean"),
        rows=rows,
    )


def _continuations(report: Report) -> Section:
    """What the dense model and the kept variant write, side by side."""
    dense, best = report.variants[0], best_variant(report)
    continuations = best.language.continuations if best.language else ()
    names = (dense.name, best.name) if best is not dense else (dense.name,)
    rows = [
        (
            written.domain,
            _text(written.prompt),
            *texts[: len(names)],
            f"{written.shared_tokens} of {written.tokens}",
        )
        for written in continuations
        for texts in [(_text(written.dense), _text(written.variant))]
    ]
    header = ("domain", "beginning", *names, "shared tokens")
    return Section(anchor="continuations", title="Continuations", header=header, rows=rows)


def _text(text: str) -> str:
    """On one line, as a cell of a table has to be."""
    return " ".join(text.split()) or "(ends at once)"


def _score(variant: Variant, metric: str) -> str:
    score = variant.quality.get(metric) or variant.fidelity.get(metric)
    return MISSING if score is None else interval(score.value, score.ci95)


def _mean(values: list[int]) -> str:
    return number(sum(values) / len(values)) if values else MISSING


def _domains(report: Report) -> list[str]:
    return list(dict.fromkeys(domain.name for _, details in _read(report) for domain in details.domains))


def _read(report: Report) -> list[tuple[Variant, LanguageDetails]]:
    return [(variant, variant.language) for variant in report.variants if variant.language is not None]
