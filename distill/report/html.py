"""The page for people: one file that opens offline, on a screen or a phone."""

from collections.abc import Iterator, Sequence
from html import escape

from distill.report.content import Report
from distill.report.headline import Fact, headline, warnings
from distill.report.pictures import Picture, pictures, script
from distill.report.rows import cells, coded_note, headers, legend, timing_note
from distill.report.style import colour
from distill.report.teacher_share import teacher_note

STYLE = """
:root { --ink: #0f172a; --soft: #64748b; --line: #e2e8f0; --paper: #fff; --ground: #f8fafc; --accent: #2563eb }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px 64px }
h1 { margin: 0 0 28px; font-size: clamp(22px, 4vw, 32px); letter-spacing: -.02em; overflow-wrap: anywhere }
h2 { margin: 0 0 4px; font-size: 17px; letter-spacing: -.01em }
p { margin: 0; color: var(--soft); font-size: 14px }
.brand { color: var(--accent); font-size: 13px; font-weight: 600; letter-spacing: .06em; text-transform: uppercase }
.grid { display: grid; gap: 20px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)) }
.facts { grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)) }
.card { margin-bottom: 20px; padding: 22px 24px; background: var(--paper); border: 1px solid var(--line);
  border-radius: 14px; box-shadow: 0 1px 2px rgb(15 23 42 / .04); min-width: 0 }
.grid { margin-bottom: 20px }
.grid .card { margin: 0 }
.pictures .card:last-child:nth-child(odd) { grid-column: 1 / -1 }
.fact b { display: block; font-size: 28px; line-height: 1.25; white-space: nowrap; letter-spacing: -.03em }
.fact span { font-weight: 600 }
/* A shadow at an edge behind which there is more: the covers scroll with the table, the shadows do not. */
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--paper) 30%, transparent) left / 40px 100% no-repeat local,
  linear-gradient(to left, var(--paper) 30%, transparent) right / 40px 100% no-repeat local,
  linear-gradient(to left, rgb(15 23 42 / .22), transparent) right / 18px 100% no-repeat scroll }
.swipe { display: none; margin-top: 10px }
@media (max-width: 900px) { .swipe { display: block } }
.warning { border-color: #f59e0b; background: #fffbeb; color: #92400e; font-weight: 600 }
.warning p { color: inherit; font-size: 15px }
.strip { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 14px }
.strip img { display: block; border: 1px solid var(--line); border-radius: 8px;
  max-width: max(50% - 6px, min(100%, 260px)) }
table { width: 100%; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { white-space: nowrap }
th { padding: 0 0 10px 22px; color: var(--soft); font-weight: 500; text-align: right; vertical-align: bottom }
td { padding: 10px 0 10px 22px; border-top: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { position: sticky; left: 0; padding-left: 0; text-align: left;
  background: var(--paper) }
tr.final { font-weight: 650 }
.dot { display: inline-grid; place-items: center; width: 22px; height: 22px; margin-right: 10px; border-radius: 50%;
  color: #fff; font-size: 11px; font-weight: 600 }
summary { cursor: pointer; font-weight: 600 }
pre { margin: 16px 0 0; overflow-x: auto; font: 13px/1.5 ui-monospace, monospace }
"""


def page(report: Report) -> str:
    """The whole report as HTML that needs no network: style, pictures and plotly.js are inside."""
    drawn = [*pictures(report)]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.recipe)} · distill</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<div class="brand">distill report</div>
<h1>{escape(report.recipe)}</h1>
{"".join(_sections(report, drawn))}
</main>
<script>{script()}</script>
<script>{_drawing(drawn)}</script>
</body>
</html>
"""


def _sections(report: Report, drawn: Sequence[Picture]) -> Iterator[str]:
    if found := warnings(report):
        yield f'<div class="card warning">{"".join(f"<p>{escape(line)}</p>" for line in found)}</div>'
    if facts := headline(report):
        yield f'<div class="grid facts">{"".join(_fact(fact) for fact in facts)}</div>'
    lines = (legend(report), timing_note(report), coded_note(report), teacher_note(report))
    note = "".join(f"<p>{escape(line)}</p>" for line in lines if line)
    swipe = '<p class="swipe">Scroll sideways for more columns.</p>'
    yield f'<div class="card"><div class="scroll">{_table(report)}</div>{swipe}{note}</div>'
    if report.predictions:
        images = "".join(f'<img src="{uri}" alt="test image with its prediction">' for uri in report.predictions)
        text = "Test images, spread evenly over the split, with predictions of the final network."
        yield f'<div class="card"><h2>Predictions</h2><p>{text}</p><div class="strip">{images}</div></div>'
    yield f'<div class="grid pictures">{"".join(_frames(drawn))}</div>'
    if report.resolved:
        yield _details("Recipe, with all defaults", report.resolved)
    if report.versions:
        yield _details("Versions", "\n".join(f"{name} {version}" for name, version in report.versions.items()))


def _fact(fact: Fact) -> str:
    value, label, detail = (escape(text) for text in (fact.value, fact.label, fact.detail))
    return f'<div class="card fact"><b>{value}</b><span>{label}</span><p>{detail}</p></div>'


def _table(report: Report) -> str:
    head = "".join(f"<th>{escape(upper)}<br>{escape(lower)}</th>" for upper, lower in headers(report))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(_rows(report))}</tbody></table>"


def _rows(report: Report) -> Iterator[str]:
    for number, step in enumerate(report.steps, start=1):
        name, *values = (escape(cell) for cell in cells(report, step))
        dot = f'<span class="dot" style="background: {colour(step.step)}">{number}</span>'
        mark = ' class="final"' if step is report.shipped else ""
        yield f"<tr{mark}><td>{dot}{name}</td>{''.join(f'<td>{value}</td>' for value in values)}</tr>"


def _frames(drawn: Sequence[Picture]) -> Iterator[str]:
    for number, picture in enumerate(drawn):
        heading = f"<h2>{escape(picture.title)}</h2><p>{escape(picture.note)}</p>"
        yield f'<div class="card">{heading}<div id="picture-{number}"></div></div>'


def _drawing(drawn: Sequence[Picture]) -> str:
    """Drawn when the page is complete: before that no frame has its width."""
    settings = "{displayModeBar: false, responsive: true}"
    figures = (
        f"Plotly.newPlot('picture-{n}', {{...{p.figure.to_json()}, config: {settings}}})" for n, p in enumerate(drawn)
    )
    return ";".join(figures)


def _details(summary: str, text: str) -> str:
    return f'<details class="card"><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>'
