"""A validation report as one HTML page that needs nothing else: no scripts, no addresses, everything escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from wellkit.fetch.disk import write_atomically
from wellkit.schemas.statistics import STATISTICS, Statistics
from wellkit.schemas.validation import Finding, ValidationReport
from wellkit.statistics import component_values
from wellkit.validation.codes import CODES
from wellkit.validation.thumbnails import Picture

_STYLE = """
:root { color-scheme: light dark; --line: #8884 }
:root { --error: #c62828; --warning: #b26a00; --info: #1565c0; --pass: #2e7d32 }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.sub { opacity: .75; margin: 0 }
.verdict { display: inline-block; color: #fff; border-radius: .4rem; padding: .1rem .7rem; font-weight: 600 }
.verdict.fail { background: var(--error) } .verdict.pass { background: var(--pass) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right }
.finding { border-left: 4px solid var(--line); padding: .3rem 0 .3rem .9rem; margin: 1rem 0; overflow-wrap: anywhere }
.finding.error { border-color: var(--error) } .finding.warning { border-color: var(--warning) }
.finding.info { border-color: var(--info) }
.finding p { margin: .15rem 0 } .place { font-family: ui-monospace, monospace; font-size: .9em }
.tag { font-weight: 600 } .error .tag { color: var(--error) } .warning .tag { color: var(--warning) }
.info .tag { color: var(--info) } .advice { opacity: .8 }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; margin: .5rem 0 }
figure { margin: 0 } figcaption { font-size: .8em; opacity: .75 }
img { image-rendering: pixelated; max-width: 20rem; border: 1px solid var(--line) }
.wide { overflow-x: auto }
"""


def write_html(path: Path, report: ValidationReport, pictures: Mapping[int, Sequence[Picture]]) -> None:
    """Write the page; it takes its name only when it is whole.

    Args:
        pictures: by number of the finding.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(path, ("\n".join(_page(report, pictures)) + "\n").encode())


def _page(report: ValidationReport, pictures: Mapping[int, Sequence[Picture]]) -> Iterator[str]:
    title = f"{report.dataset or 'Validation'}: {report.verdict}"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(report.dataset or 'Validation report')} "
    yield f'<span class="verdict {report.verdict}">{report.verdict}</span></h1>'
    yield f'<p class="sub place">{escape(report.location)}</p>'
    read = f"{report.bytes_read / 1e9:.2f} GB of values read" if report.data_checked else "headers only"
    yield f'<p class="sub">{escape(report.tally)}. {read} in {report.seconds:.1f} s, {escape(report.created)}, wellkit '
    yield f"{escape(report.wellkit_version)}. Card: {escape(report.card or 'none')}.</p>"
    yield from _splits(report)
    yield "<h2>Findings</h2>"
    if not report.findings:
        yield "<p>Nothing to report.</p>"
    for number, found in enumerate(report.findings):
        yield from _finding(found, pictures.get(number, ()))
    for code, count in report.unlisted.items():
        yield f"<p>And {count} more of the kind <b>{escape(code)}</b>.</p>"
    for split, statistics in report.statistics.items():
        yield from _statistics(split, statistics)
    yield "</body></html>"


def _splits(report: ValidationReport) -> Iterator[str]:
    head = "".join(f'<th class="number">{name}</th>' for name in ("shards", "trajectories", "frames", "GB"))
    yield f'<div class="wide"><table><tr><th>split</th>{head}</tr>'
    for name, split in report.splits.items():
        numbers = (split.shards, split.trajectories, split.frames, f"{split.bytes / 1e9:.3f}")
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        yield f"<tr><td>{escape(name or 'shards')}</td>{cells}</tr>"
    yield "</table></div>"


def _finding(found: Finding, pictures: Sequence[Picture]) -> Iterator[str]:
    meaning = CODES[found.code].meaning if found.code in CODES else ""
    yield f'<div class="finding {escape(found.severity)}">'
    yield f'<p><span class="tag">{escape(found.severity)}: {escape(found.code)}</span> {escape(meaning)}</p>'
    yield f'<p class="place">{escape(found.place)}</p><p>{escape(found.message)}</p>'
    if pictures:
        yield '<div class="pictures">'
        for picture in pictures:
            caption = escape(picture.caption)
            yield f'<figure><img alt="{caption}" src="{escape(picture.source)}">'
            yield f"<figcaption>{caption}</figcaption></figure>"
        yield "</div>"
    yield f'<p class="advice">To do: {escape(found.advice)}.</p></div>'


def _statistics(split: str, statistics: Statistics) -> Iterator[str]:
    yield f"<h2>Statistics, as computed{': ' + escape(split) if split else ''}</h2>"
    head = "".join(f'<th class="number">{name}</th>' for name in STATISTICS)
    yield f'<div class="wide"><table><tr><th>component</th>{head}</tr>'
    for component, values in component_values(statistics).items():
        cells = "".join(
            f'<td class="number">{values[name]:.6g}</td>' if name in values else '<td class="number">-</td>'
            for name in STATISTICS
        )
        yield f"<tr><td>{escape(component)}</td>{cells}</tr>"
    yield "</table></div>"
