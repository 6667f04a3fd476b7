"""What the Improve page shows, as HTML: counts, a run, its curve, before and after, and the versions.

show_run(run, improver.progress(run), improver.curve(run), texts)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from app.improve_texts import ImproveTexts
from app.improving import STAGES, Curve, Run
from dialog_mllm.adapters import ORIGINAL, Version

WIDTH, HEIGHT = 640, 200  # of the curve, in its own units; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 26


def show_feedback(counts: Mapping[str, int], texts: ImproveTexts) -> str:
    tiles = "".join(
        f'<li data-kind="{kind}"><b>{counts.get(kind, 0):,}</b><span>{name}</span></li>'
        for kind, name in texts.kinds.items()
    )
    nothing = f'<p class="easel-hint">{texts.no_feedback}</p>' if not any(counts.values()) else ""
    return f'<ul class="improve-counts">{tiles}</ul>{nothing}'


def show_run(run: Run | None, progress: float, curve: Curve, texts: ImproveTexts) -> str:
    if run is None:
        return ""
    error = f'<div class="easel-error" role="alert">{escape(run.error)}</div>' if run.error else ""
    state = f'<p class="improve-state" role="status">{texts.states[run.state]}</p>'
    if run.state in ("activated", "discarded"):
        return state
    stages = "" if run.state == "measured" else _stages(run, progress, texts)
    drawn = show_curve(curve, texts) if curve.train or curve.validation else ""
    shown = f"{state}{error}{stages}{drawn}"
    return f'<div class="improve-run" data-state="{run.state}">{shown}</div>{show_scores(run, texts)}'


def _stages(run: Run, progress: float, texts: ImproveTexts) -> str:
    at = STAGES.index(run.stage)
    items = []
    for number, stage in enumerate(STAGES):
        mark = "done" if number < at else "now" if number == at else "next"
        bar = ""
        if mark == "now":
            bar = (
                f'<div class="easel-bar" role="progressbar" aria-label="{texts.stages[stage]}" aria-valuemin="0" '
                f'aria-valuemax="100" aria-valuenow="{100 * progress:.0f}">'
                f'<div style="width: {progress:.1%}"></div></div>'
            )
        items.append(f'<li data-mark="{mark}"><span>{texts.stages[stage]}</span>{bar}</li>')
    return f'<ol class="improve-stages">{"".join(items)}</ol>'


def show_curve(curve: Curve, texts: ImproveTexts) -> str:
    """The loss over the minutes, as SVG in the page's own colours; the vertical axis is logarithmic."""
    points = [*curve.train, *curve.validation]
    longest = max(curve.minutes, *(minutes for minutes, _ in points)) or 1.0
    losses = [max(loss, 1e-6) for _, loss in points]
    low, high = math.log(min(losses) / 1.1), math.log(max(losses) * 1.1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        minutes, loss = point
        x = LEFT + minutes / longest * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - math.log(max(loss, 1e-6))) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    def line(name: str, of: Sequence[tuple[float, float]]) -> str:
        placed = [place(point) for point in of]
        path = " ".join(f"{x},{y}" for x, y in placed)
        dots = "".join(f'<circle cx="{x}" cy="{y}" r="3"/>' for x, y in placed) if name == "validation" else ""
        return f'<g class="improve-{name}"><polyline points="{path}"/>{dots}</g>'

    ticks = "".join(
        f'<text x="{LEFT - 7}" y="{place((0, value))[1] + 4}" text-anchor="end">{value:.3g}</text>'
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place((0, value))[1]}" y2="{place((0, value))[1]}"/>'
        for value in (math.exp(low) * 1.1, math.exp((low + high) / 2), math.exp(high) / 1.1)
    )
    said = texts.steps.format(steps=curve.steps, minutes=curve.minutes)
    return (
        f'<figure class="improve-curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{texts.loss}: {said}"><g class="improve-axis">{ticks}'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 7}" text-anchor="end">{longest:.1f} {texts.minutes_axis}</text></g>'
        f"{line('train', curve.train)}{line('validation', curve.validation)}</svg>"
        f'<figcaption><span class="improve-train">{texts.loss}</span><span class="improve-validation">{texts.loss}, '
        f"{texts.validation_loss}</span><span>{said}</span></figcaption></figure>"
    )


def show_scores(run: Run, texts: ImproveTexts) -> str:
    """Both adapters side by side, with intervals, and what that says."""
    if not run.scores:
        return ""
    rows = run.scores["held_out"]
    kind = "worse" if run.worse else "better" if any(row["says"] == "keep" for row in rows) else "same"
    said = say_worse(run.worse, texts) if run.worse else texts.found[kind]
    verdict = f'<p class="improve-verdict" data-found="{kind}">{said}</p>'
    parts = [
        _scores(texts.on_held_out, "", rows, run, texts),
        _scores(texts.on_feedback, f" <small>({texts.on_feedback_info})</small>", run.scores["feedback"], run, texts),
    ]
    return (
        f'<section class="improve-scores"><h3>{texts.before_after}</h3>{verdict}{"".join(parts)}'
        f'<p class="easel-hint">{texts.interval}</p></section>'
    )


def say_worse(measures: Sequence[str], texts: ImproveTexts) -> str:
    return texts.found["worse"].format(measures=", ".join(texts.measures.get(name, name) for name in measures))


def _scores(title: str, more: str, rows: Sequence[Mapping[str, Any]], run: Run, texts: ImproveTexts) -> str:
    if not rows:
        return ""
    lines = "".join(
        f'<tr data-measure="{row["measure"]}" data-says="{row["says"]}">'
        f"<th scope=row>{texts.measures.get(row['measure'], row['measure'])}</th>"
        f"{_share(row, 'a')}{_share(row, 'b')}<td>{texts.verdicts[row['says']]}</td>"
        f'<td class="improve-number">{row["n"]:,}</td></tr>'
        for row in rows
    )
    return (
        f'<div class="improve-table"><table><caption>{title}{more}</caption><thead><tr>'
        f"<th scope=col>{texts.measure}</th><th scope=col>{escape(name_of(run.parent, texts))}</th>"
        f"<th scope=col>{escape(run.version)}</th><th></th><th scope=col>{texts.turns}</th></tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def _share(row: Mapping[str, Any], side: str) -> str:
    low, high = row[f"{side}_interval"]
    share = row[side]
    return (
        f"<td><b>{share:.1%}</b> <small>{low:.0%}–{high:.0%}</small>"
        '<span class="improve-interval" aria-hidden="true">'
        f'<i style="left: {low:.1%}; width: {max(0.005, high - low):.1%}"></i>'
        f'<u style="left: {share:.1%}"></u></span></td>'
    )


Trial = tuple[str, float] | None  # a version, and the share of the conversations that get it
Opinions = Mapping[str, Mapping[str, int]]  # by version; see `Store.opinions`


def show_versions(
    versions: Sequence[Version], active: str, trial: Trial, opinions: Opinions, texts: ImproveTexts
) -> str:
    """Newest first, the original last."""

    def head(name: str) -> str:
        marks = [texts.active] if name == active else []
        if trial is not None and trial[0] == name:
            marks.append(texts.trying.format(share=trial[1]))
        return name_of(name, texts) + "".join(f' <span class="improve-active">{mark}</span>' for mark in marks)

    rows = "".join(
        f'<tr data-version="{version.name}"><th scope=row>{head(version.name)}</th>{_version(version, texts)}'
        f"<td>{_opinions(opinions.get(version.name, {}), texts)}</td></tr>"
        for version in reversed(versions)
    )
    rows += (
        f'<tr data-version="{ORIGINAL}"><th scope=row>{head(ORIGINAL)}</th><td></td><td></td><td></td>'
        f"<td>{_opinions(opinions.get(ORIGINAL, {}), texts)}</td></tr>"
    )
    return (
        f'<div class="improve-table"><table><thead><tr><th scope=col>{texts.choose}</th><th scope=col>{texts.made}</th>'
        f"<th scope=col>{texts.learnt_from}</th><th scope=col>{texts.before_after}</th>"
        f"<th scope=col>{texts.opinions}</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _version(version: Version, texts: ImproveTexts) -> str:
    made = datetime.fromtimestamp(version.created).strftime("%Y-%m-%d %H:%M")
    origin = [name_of(version.parent, texts)] if version.parent else []
    if version.settings.get("feedback"):
        origin.append(texts.records.format(n=version.settings["feedback"]))
    rows = version.scores.get("held_out") or []
    scores = "<br>".join(
        f"{texts.measures.get(row['measure'], row['measure'])}: {row['a']:.1%} → {row['b']:.1%}" for row in rows
    )
    return f"<td>{made}</td><td>{escape(', '.join(origin))}</td><td>{scores or texts.not_measured}</td>"


def _opinions(counts: Mapping[str, int], texts: ImproveTexts) -> str:
    """How many replies it wrote, and what of them was rated."""
    if not counts.get("replies"):
        return ""
    rated = [f"{texts.kinds[kind]}: {counts[kind]}" for kind in texts.kinds if counts.get(kind)]
    return "<br>".join([texts.replies.format(n=counts["replies"]), *rated])


def name_of(version: str, texts: ImproveTexts) -> str:
    return texts.original if version == ORIGINAL else version
