"""The tests of a full report with all their numbers, as text. No torch."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING
from unicodedata import combining, east_asian_width

from nptwatch.diagnostics.full_tests import BASIC, GENERATION, PER_LAYER, PROGRESSIVE, STANDARD
from nptwatch.diagnostics.text_blocks import fixed, percent, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nptwatch.diagnostics.report import Report
    from nptwatch.diagnostics.text_blocks import Style

INDENT = "   "
SIDE = 36
"""Columns of a generation beside the other side's."""
TEXT = 52
"""Characters of a probe text in a table."""


def detail_lines(number: int, test: Report, style: Style) -> list[str]:
    """Write one test: status, score, numbers, recommendations."""
    details = test["details"]
    heading = f"{number}. {test['test_name']}: {style.marked(test['status'])}"
    lines = ["", f"{heading} (score {test['score']:.2f})"]
    if "error" in details:
        lines += wrapped(f"Error: {details['error']}")
    else:
        lines += _LINES[test["test_name"]](details)
    for text in test["recommendations"]:
        lines += wrapped(f"Recommendation: {text}")
    return lines


def _basic(details: Report) -> list[str]:
    lines = [
        f"{INDENT}Same shape as the base: {_yes(details['same_shape'])}",
        f"{INDENT}All values finite: {_yes(details['all_finite'])}",
    ]
    if details["non_finite"]:
        lines += wrapped(f"First NaN or infinity: {details['non_finite']}")
    return lines


def _standard(details: Report) -> list[str]:
    rows = [
        [fixed(each["mse"], 6), fixed(each["cosine"], 4), _cut(_shown(each["text"]), TEXT)]
        for each in details["individual_results"]
    ]
    return [
        f"{INDENT}NPT vs original: MSE {fixed(details['avg_mse_npt_vs_original'], 6)}, "
        f"cosine {fixed(details['avg_cosine_similarity'], 4)}",
        f"{INDENT}Standard mode vs original: MSE "
        f"{fixed(details['avg_mse_standard_vs_original'], 6)}",
        f"{INDENT}KL {fixed(details['avg_kl'], 4)} nats/token, same top token "
        f"{percent(details['top1_agreement'])}, relative MSE "
        f"{fixed(details['relative_mse'], 4)}",
        f"{INDENT}Perplexity ratio {fixed(details['perplexity_ratio'], 4)}, hidden MSE "
        f"{fixed(details['hidden_mse'], 6)}",
        *_table(["MSE", "COSINE", "TEXT"], rows),
    ]


def _per_layer(details: Report) -> list[str]:
    rows = [
        [
            layer,
            fixed(result.get("mse_loss"), 6),
            fixed(result.get("cosine_similarity"), 4),
            fixed(result.get("kl_divergence"), 4),
            fixed(result["local_mse"], 6),
            percent(result["local_relative"]),
            result["status"],
        ]
        for layer, result in details["layer_results"].items()
    ]
    titles = ["LAYER", "MSE", "COSINE", "KL LAST", "LOCAL MSE", "OF UPDATE", "STATUS"]
    summary = details["summary"]
    return [
        f"{INDENT}Mean MSE {fixed(summary['avg_mse'], 6)}, cosine "
        f"{fixed(summary['avg_cosine_similarity'], 4)}; good layers "
        f"{summary['good_layers']}/{summary['total_layers']}",
        *_table(titles, rows),
    ]


def _generation(details: Report) -> list[str]:
    prefix = details["avg_greedy_common_prefix"]
    lines = [
        f"{INDENT}Coherence {fixed(details['avg_coherence'], 2)}, similarity "
        f"{fixed(details['avg_similarity'], 2)}; same noise on both sides, seed "
        f"{details['seed']}",
        f"{INDENT}Greedy continuations agree for {fixed(prefix, 1)} of "
        f"{details['max_new_tokens']} tokens",
    ]
    for temperature, by_prompt in details["generation_results"].items():
        for prompt, each in by_prompt.items():
            lines += [
                "",
                f"{INDENT}{_shown(prompt)}",
                f"{INDENT}Temperature {temperature}, coherence {fixed(each['coherent'], 2)}, "
                f"similarity {fixed(each['similar_to_original'], 2)}",
                *_beside("NPT", "ORIGINAL"),
                *_beside(
                    _shown(each["npt_generation"].removeprefix(prompt)),
                    _shown(each["original_generation"].removeprefix(prompt)),
                ),
            ]
    return lines


def _progressive(details: Report) -> list[str]:
    rows = [
        [n, fixed(step["mse_loss"], 6), _spans(step["active_layers"])]
        for n, step in details["progression_results"].items()
    ]
    return [
        f"{INDENT}MSE trend {details['mse_trend']}, final MSE {fixed(details['final_mse'], 6)}",
        *_table(["ACTIVE", "MSE", "LAYERS"], rows),
    ]


_LINES = {
    BASIC: _basic,
    STANDARD: _standard,
    PER_LAYER: _per_layer,
    GENERATION: _generation,
    PROGRESSIVE: _progressive,
}


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _spans(layers: Sequence[int]) -> str:
    """Write ascending layers as spans: 0-3, 7."""
    spans: list[tuple[int, int]] = []
    for layer in layers:
        if spans and spans[-1][1] == layer - 1:
            spans[-1] = spans[-1][0], layer
        else:
            spans.append((layer, layer))
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def _shown(text: str) -> str:
    """Escape what must not reach a terminal: a generated text may hold anything."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows below their titles: words, in the last column, at the left, numbers right."""
    lines = [titles, *rows]
    widths = [max(map(len, column)) for column in list(zip(*lines, strict=True))[:-1]]
    return [
        INDENT + "  ".join([*(f"{c:>{w}}" for c, w in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    ]


def _beside(ours: str, theirs: str) -> list[str]:
    """Put two texts beside each other, words whole where they fit."""
    pairs = zip_longest(_broken(ours), _broken(theirs), fillvalue="")
    return [f"{INDENT}{a}{' ' * (SIDE - _columns(a))}  {b}".rstrip() for a, b in pairs]


def _broken(text: str) -> list[str]:
    """Break a text into lines of SIDE columns."""
    lines = [""]
    for word in _pieces(text):
        space = " " if lines[-1] else ""
        if _columns(lines[-1] + space + word) <= SIDE:
            lines[-1] += space + word
        else:
            lines.append(word)
    return lines


def _pieces(text: str) -> Iterator[str]:
    """Give the words; one that is wider than a side, cut."""
    for word in text.split():
        piece = ""
        for character in word:
            if _columns(piece + character) > SIDE:
                yield piece
                piece = ""
            piece += character
        yield piece


def _columns(text: str) -> int:
    """Count the columns that a text takes on a terminal."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
