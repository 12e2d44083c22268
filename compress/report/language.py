"""What the reports say of a language model: how it reads held-out text, and what it writes by itself."""

from collections.abc import Iterator

from compress.report.format import MISSING, interval, number, percent
from compress.report.section import Section, best_variant
from compress.schema.report import LanguageDetails, Report, Variant


def language_sections(report: Report) -> list[Section]:
    return [_reading(report), _writing(report), _continuations(report)]


def _reading(report: Report) -> Section:
    """A row per domain and variant."""
    rows = [
        (
            each.name,
            variant.name,
            str(each.documents),
            str(each.tokens),
            number(each.bytes / each.tokens),
            _score(variant, f"bits_per_byte_{each.name}"),
            _score(variant, f"perplexity_{each.name}"),
        )
        for variant, found in _read(report)
        for each in found.domains
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
    for _, found in _read(report)[:1]:
        yield (
            f"Documents in a row, in windows of {found.context} tokens, {found.stride} from one to the next; "
            "a token is scored once. Intervals are over documents."
        )
    few = [(variant, found) for variant, found in _read(report) if _other_tokens(report, variant)]
    for variant, found in few:
        yield (
            f"{variant.name} has other tokens than the dense model: only bits per byte compares. It was "
            f"compared with dense, among its own tokens, at the {percent(found.compared_share)} of the "
            "places where a token ends under both."
        )


def _other_tokens(report: Report, variant: Variant) -> bool:
    return any(
        f"perplexity_{each.name}" not in variant.quality
        for each in (variant.language.domains if variant.language else ())
    )


def _writing(report: Report) -> Section:
    """A row per variant: how near it stays to the dense model, and how often it repeats itself."""
    rows = []
    for variant, found in _read(report):
        written = found.continuations
        shared = (
            f"{_mean([each.shared_tokens for each in written])} of {_mean([each.tokens for each in written])}"
        )
        rows.append(
            (
                variant.name,
                _score(variant, "kl"),
                _score(variant, "top1_agreement"),
                shared if written else MISSING,
                percent(sum(each.variant_repeated for each in written) / len(written))
                if written
                else MISSING,
            )
        )
    prompts = max((len(found.continuations) for _, found in _read(report)), default=0)
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
    found = best.language.continuations if best.language else ()
    names = (dense.name, best.name) if best is not dense else (dense.name,)
    rows = [
        (each.domain, _text(each.prompt), *texts[: len(names)], f"{each.shared_tokens} of {each.tokens}")
        for each in found
        for texts in [(_text(each.dense), _text(each.variant))]
    ]
    header = ("domain", "beginning", *names, "shared tokens")
    return Section(anchor="continuations", title="Continuations", header=header, rows=rows)


def _text(text: str) -> str:
    """On one line, as a cell of a table has to be."""
    return " ".join(text.split()) or "(ends at once)"


def _score(variant: Variant, metric: str) -> str:
    found = variant.quality.get(metric) or variant.fidelity.get(metric)
    return MISSING if found is None else interval(found.value, found.ci95)


def _mean(values: list[int]) -> str:
    return number(sum(values) / len(values)) if values else MISSING


def _domains(report: Report) -> list[str]:
    return list(dict.fromkeys(each.name for _, found in _read(report) for each in found.domains))


def _read(report: Report) -> list[tuple[Variant, LanguageDetails]]:
    return [(variant, variant.language) for variant in report.variants if variant.language is not None]
