"""The fresh process of an `Alone` case: builds it, runs it, prints its row as JSON."""

import importlib
import json
import sys
from dataclasses import asdict
from typing import Any

import torch

from .case import Case, Context, Group, Row
from .memory import FRESH
from .timing import measure_group

__all__ = ["main"]


def main() -> None:
    """Reads the task from stdin; the row is the last line of stdout."""
    task: dict[str, Any] = json.load(sys.stdin)
    torch.set_num_threads(task["threads"])
    context = Context(
        torch.device(task["device"]),
        getattr(torch, task["dtype"]),
        task["sizes"],
        task["threads"],
        task["rounds"],
        task["ceilings"]["product_gflop_s"][task["dtype"]],
    )
    module, _, function = task["build"].partition(":")
    build = getattr(importlib.import_module(f".speed.{module}", __package__), function)
    case: Case = build(context, **task["arguments"])
    group = Group(name=task["group"], cases=[case], axis=task["axis"], x=task["x"], rounds=task["rounds"])
    row: Row = measure_group(group, context, warm_ups=0, ceilings=task["ceilings"])[0]
    row.name, row.memory = task["name"], FRESH
    sys.stdout.write("\n" + json.dumps(asdict(row)) + "\n")
