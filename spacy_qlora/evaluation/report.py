"""The tables of an evaluation on the screen."""

from __future__ import annotations

from typing import Any

from wasabi import msg

HEADER = ("", "P", "R", "F", "Support")


def print_scores(scores: dict[str, Any]) -> None:
    """Prints per cent per type, in total, by seqeval, and on unseen names where scored.

    scores (dict[str, Any]): From `evaluate`.
    """
    per_type = scores["ents_per_type"]
    total = {name: scores[f"ents_{name}"] for name in "prf"}
    total["support"] = sum(figures["support"] for figures in per_type.values())
    seqeval = {**scores["seqeval"], "support": total["support"]}
    _print_table("Entities", [*per_type.items(), ("total", total), ("seqeval total", seqeval)])
    if unseen := scores.get("unseen"):
        _print_table("Names unseen in training", [*unseen["per_type"].items(), ("total", unseen)])
    if missing := scores["docs_without_annotation"]:
        msg.warn(f"{missing} of {scores['docs']} docs carry no entity annotation and were not scored.")


def _print_table(title: str, rows: list[tuple[str, dict[str, float]]]) -> None:
    data = [
        (name, *(f"{100 * figures[key]:.2f}" for key in "prf"), f"{figures['support']:,}") for name, figures in rows
    ]
    msg.table(data, header=HEADER, title=title, divider=True, aligns=("l", "r", "r", "r", "r"))
