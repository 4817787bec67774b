"""The report: one HTML file that needs nothing else, light or dark as the reader has it. Pure.

Mirror: tests/bench/load/test_page.py.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Literal

from .charts import heat_map, percentile_chart, throughput_chart
from .record import Record, called
from .wording import (
    CLOSED,
    OPEN,
    RUNS,
    Row,
    broker_rows,
    count_rows,
    duration,
    error_rows,
    event_lines,
    generator_rows,
    kind_rows,
    knee_rows,
    load_of,
    percentile_rows,
    rate,
    shape_of,
)

_STYLE = """
:root{color-scheme:light dark;--page:#f6f6f4;--card:#fff;--ink:#17181a;--soft:#5c6066;
--rule:#e3e4e1;--one:#2a6fd0;--two:#c2571a;--plain:#8b9097;--bad:#c22f3d;--badcard:#fdecec}
@media(prefers-color-scheme:dark){:root{--page:#131416;--card:#1c1e21;--ink:#eceef0;--soft:#a1a7ae;
--rule:#33363b;--one:#6ba6f5;--two:#f0935a;--plain:#7d838b;--bad:#f2707b;--badcard:#3a1f23}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1680px;margin:auto;padding:clamp(16px,2.5vw,40px)}
h1{font-size:clamp(20px,2.2vw,28px);line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:15px;margin:0 0 8px}
p{margin:0 0 4px;color:var(--soft);overflow-wrap:anywhere}
.say{margin:16px 0;padding:12px 16px;border-radius:10px;background:var(--badcard);color:var(--ink)}
.tiles{display:grid;gap:12px;margin:20px 0;grid-template-columns:repeat(auto-fit,minmax(138px,1fr))}
.tile,figure,section{background:var(--card);border:1px solid var(--rule);border-radius:12px}
.tile{padding:12px 16px}
.tile b{display:block;font-size:24px;line-height:1.3;font-weight:600;white-space:nowrap}
.tile span{color:var(--soft);font-size:13px}
.charts{display:grid;gap:16px;grid-template-columns:minmax(0,1fr);margin-bottom:16px}
.tables{column-gap:16px}
@media(min-width:1100px){.charts{grid-template-columns:repeat(2,minmax(0,1fr))}
.charts>:last-child:nth-child(odd){grid-column:1/-1}.tables{columns:2}}
figure,section{margin:0;padding:14px 16px 16px;min-width:0}
section{break-inside:avoid;margin-bottom:16px}
.word{white-space:nowrap}
figcaption{display:flex;flex-wrap:wrap;gap:2px 16px;justify-content:space-between;
margin-bottom:14px}
.keys{color:var(--soft);font-size:13px}
.key{margin-left:14px;white-space:nowrap}.key:first-child{margin-left:0}
.key i{display:inline-block;width:16px;height:3px;border-radius:2px;margin-right:6px;
vertical-align:middle;background:var(--plain)}
.key i.one{background:var(--one)}.key i.two{background:var(--two)}.key i.bad{background:var(--bad)}
.frame{display:grid;grid-template:minmax(0,1fr) 24px/64px minmax(0,1fr);
height:clamp(230px,30vw,340px);padding-right:22px}
.plot,.y,.x{position:relative}.x{grid-column:2}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
.y span,.x span{position:absolute;font-size:12px;color:var(--soft);white-space:nowrap;line-height:1}
.y span{right:8px;transform:translateY(50%)}.x span{top:9px;transform:translateX(-50%)}
.grid{stroke:var(--rule);stroke-width:1;vector-effect:non-scaling-stroke;fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round;vector-effect:non-scaling-stroke;
stroke:var(--plain)}
.line.one{stroke:var(--one)}.line.two{stroke:var(--two)}.line.bad{stroke:var(--bad)}
.line.plain{stroke-dasharray:5 4;stroke-width:1.5}
.heat{stroke:none;shape-rendering:crispEdges}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{padding:5px 14px 5px 0;text-align:right;border-top:1px solid var(--rule);
vertical-align:top}
td{white-space:nowrap}
th{font-weight:500;color:var(--soft)}
td:first-child,th:first-child{text-align:left}td:last-child,th:last-child{padding-right:0}
tr:first-child>*{border-top:0}
.named td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:9em}
.noted td:last-child{white-space:normal;min-width:12em;text-align:left}
.facts td{white-space:normal;overflow-wrap:anywhere;text-align:left;color:var(--ink)}
.facts td:first-child{color:var(--soft);white-space:nowrap}
.none{padding:24px 0;text-align:center}
@media(max-width:480px){.frame{grid-template-columns:50px minmax(0,1fr);padding-right:16px}
.x span,.y span{font-size:11px}table{font-size:12px}td,th{padding-right:6px}
figure,section{padding:12px}
td:first-child,td:last-child{white-space:normal}
.apart tr{display:grid;grid-template-columns:repeat(var(--columns),1fr);padding:4px 0;
border-top:1px solid var(--rule)}.apart tr:first-child,.apart tr>*{border-top:0}
.apart tr>*{padding:1px 0 1px 6px}.apart tr>:empty{display:none}
.named tr>:first-child,.noted tr>:last-child{grid-column:1/-1;padding-left:0;text-align:left}
.noted tr>:first-child{padding-left:0}
.apart th,.named td:last-child{white-space:normal}
.tiles{grid-template-columns:1fr 1fr}.tile b{font-size:20px}}
"""
_LONG_WORD = 16
_BREAKS = re.compile(r"[-/?]")  # where browsers break words
_PARTS = re.compile(r"(?<=[_./])(?=\w)")
_HEAT = "".join(
    f".h{shade}{{fill:color-mix(in oklab,var(--one) {18 + shade * 11.7:.0f}%,var(--card))}}"
    for shade in range(8)
)


def page(record: Record, failed: Sequence[str] = ()) -> str:
    """Make the report of a run.

    Args:
        record: Of it.
        failed: The conditions that make it a failure.
    """
    nodes = ", ".join(map(called, record.kinds))
    title = f"{nodes}: {load_of(record.plan)}"
    body = [
        f"<h1>{_text(title)}</h1>",
        f"<p>{_text(_subtitle(record))}</p>",
        _sayings(record, failed),
        f'<div class="tiles">{"".join(_tiles(record))}</div>',
        '<div class="charts">',
        percentile_chart(record),
        heat_map(record),
        throughput_chart(record),
        '</div><div class="tables">',
        *_tables(record),
        "</div>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{_HEAT}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _subtitle(record: Record) -> str:
    loop = OPEN if record.is_open else CLOSED
    said = f"{record.target}. {loop[0].upper()}{loop[1:]}."
    if any(kind.workflow for kind in record.kinds):
        said += f" {RUNS[0].upper()}{RUNS[1:]}."
    return f"{said} {rate(record.plan.rate)} {shape_of(record.plan)}." if record.is_open else said


def _sayings(record: Record, failed: Sequence[str]) -> str:
    said = []
    if not record.valid:
        said.append(_say("Figures invalid.", record.problems))
    told = [each for each in failed if each not in record.problems]
    if told:
        said.append(_say("Failed.", told))
    if record.events:
        said.append(_say("Meanwhile.", event_lines(record)))
    return "".join(said)


def _say(what: str, reasons: Sequence[str]) -> str:
    lines = "<br>".join(map(_text, reasons))
    return f'<div class="say"><b>{what}</b> {lines}</div>'


def _tiles(record: Record) -> list[str]:
    latency = record.latency
    highest = latency.percentiles[-1] if latency.percentiles else None
    shown = [("median latency", duration(latency.at(50))), ("p99", duration(latency.at(99)))]
    if highest is not None and highest.percent > 99:
        shown.append((f"p{highest.percent:g}", duration(highest.ns)))
    shown.append(("longest", duration(latency.max_ns if latency.count else None)))
    offered = f" of {rate(record.offered_per_s)}" if record.is_open else ""
    shown.append((f"achieved{offered}", rate(record.achieved_per_s)))
    failed = record.counts["errors"] + record.counts["unsent"]
    shown.append(("errors and calls not sent", f"{failed:,}"))
    if record.knee is not None:
        shown.append((f"knee: {record.knee.condition}", rate(record.knee.rate)))
    return [
        f'<div class="tile"><b>{escape(value)}</b><span>{_text(name)}</span></div>'
        for name, value in shown
    ]


def _tables(record: Record) -> list[str]:
    tables = [
        _table("Percentiles", percentile_rows(record)),
        _table("Calls", [("", "Calls"), *count_rows(record)]),
        _table("By node", kind_rows(record), apart="named"),
    ]
    if record.errors:
        tables.append(_table("Errors", [("Code", "Calls"), *error_rows(record)]))
    if record.broker:
        tables.append(_table("As the broker sees it", broker_rows(record), apart="named"))
    if record.knee is not None:
        title = f"Search for the knee, {record.knee.condition}"
        tables.append(_table(title, knee_rows(record), apart="noted"))
    tables.append(_table("Generator processes", generator_rows(record)))
    tables.append(_facts("Environment", record.environment))
    return tables


def _table(title: str, rows: Sequence[Row], *, apart: Literal["", "named", "noted"] = "") -> str:
    """Make a table.

    Args:
        title: Of it.
        rows: The first is its head.
        apart: Which cells have a line of their own on a narrow page, for they may be long: the
            first of each row, which is a name, or the last, which is a note.
    """
    first, *others = rows
    body = _row(first, "th") + "".join(_row(row, "td") for row in others)
    looks = f' class="apart {apart}" style="--columns:{len(first) - 1}"' if apart else ""
    table = f'<div class="scroll"><table{looks}>{body}</table></div>'
    return f"<section><h2>{_text(title)}</h2>{table}</section>"


def _row(cells: Row, tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _text(text: str) -> str:
    """Escape a text; its short words stay whole, long ones may be broken where their parts end.

    A browser by itself breaks ``1,000/s`` and ``--out``, and a name wherever the line ends.
    """
    return " ".join(map(_word, text.split(" ")))


def _word(word: str) -> str:
    if len(word) > _LONG_WORD:
        return "<wbr>".join(map(escape, _PARTS.split(word)))
    return f'<span class="word">{escape(word)}</span>' if _BREAKS.search(word) else escape(word)


def _facts(title: str, facts: Mapping[str, object]) -> str:
    rows = []
    for name, value in facts.items():
        shown = (
            ", ".join(f"{key} {each}" for key, each in value.items() if each)
            if isinstance(value, Mapping)
            else "unknown"
            if value is None
            else str(value)
        )
        rows.append(_row((name.replace("_", " "), shown), "td"))
    return (
        f'<section class="facts"><h2>{escape(title)}</h2><table>{"".join(rows)}</table></section>'
    )
