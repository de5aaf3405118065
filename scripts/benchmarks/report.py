"""The table, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.aims import verdicts
from benchmarks.figure import Title
from benchmarks.results import Results


def table(machine: Mapping[str, str], titles: Mapping[str, Title], labels: Mapping[str, str], results: Results) -> str:
    """Every figure that was measured, with min, median, max of its repetitions and the aim beside keyop's."""
    lines = [f"{key:12} {value}" for key, value in machine.items()]
    for key, title in titles.items():
        rows = [
            _row(key, title, labels, contender, results) for contender in labels if (key, contender) in results.samples
        ]
        if rows:
            lines += ["", f"{title.text} ({title.unit})", f"  {'':28}{'min':>12}{'median':>12}{'max':>12}", *rows]
    reasons: dict[str, list[str]] = {}
    for (name, contender), reason in results.missing.items():
        reasons.setdefault(f"{labels.get(contender, contender)}: {reason}", []).append(name)
    if reasons:
        lines += ["", "not measured", *(f"  {reason} [{', '.join(names)}]" for reason, names in reasons.items())]
    judged = [verdict for key in titles for verdict in verdicts(results, key)]
    if judged:
        lines += ["", f"{sum(verdict.met for verdict in judged)} of {len(judged)} aims met"]
    return "\n".join(lines)


def _row(key: str, title: Title, labels: Mapping[str, str], contender: str, results: Results) -> str:
    values = list(results.samples[key, contender].values())
    numbers = "".join(f"{value:>12,.{title.decimals}f}" for value in (min(values), median(values), max(values)))
    judged = "; ".join(map(str, verdicts(results, key))) if contender == "keyop" else ""
    return f"  {labels[contender]:28}{numbers}   {judged}".rstrip()


def as_json(
    machine: Mapping[str, str], titles: Mapping[str, Title], labels: Mapping[str, str], results: Results
) -> str:
    """The same for programs: every sample, every aim, and why something is missing."""
    figures: list[dict[str, Any]] = []
    for (key, contender), samples in results.samples.items():
        values = list(samples.values())
        figure = {
            "figure": key,
            "title": titles[key].text,
            "unit": titles[key].unit,
            "contender": contender,
            "samples": values,
            "min": min(values),
            "median": median(values),
            "max": max(values),
        }
        if contender == "keyop":
            figure["aims"] = [
                {
                    "limit": verdict.aim.limit,
                    "at_least": verdict.aim.at_least,
                    "beside": verdict.aim.beside,
                    "values": verdict.values,
                    "met": verdict.met,
                }
                for verdict in verdicts(results, key)
            ]
        figures.append(figure)
    missing = [
        {"measurement": name, "contender": contender, "reason": reason}
        for (name, contender), reason in results.missing.items()
    ]
    document = {"machine": machine, "labels": labels, "figures": figures, "missing": missing}
    return json.dumps(document, indent=1, ensure_ascii=False)
