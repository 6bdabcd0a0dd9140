"""Run every benchmark, print a table and write ``bench.json``."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

BENCHMARKS = (
    *("bench_quantize", "bench_sensitivity", "bench_space", "bench_search", "bench_memory"),
    *("bench_statistics", "bench_calibrate", "bench_fisher", "bench_recipe", "bench_workers", "bench_pool"),
)


def main() -> None:
    """Print one row per figure; a row that misses its target stays in and says so."""
    rows = []
    for name in BENCHMARKS:
        Console(stderr=True).print(f"running {name}")
        rows += importlib.import_module(name).run()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("what", "value", "unit", "target", "holds"):
        table.add_column(heading, justify="right" if heading in {"value", "target"} else "left")
    for row in rows:
        table.add_row(row["name"], f"{row['value']:.4g}", row["unit"], f"{row['target']:.4g}", str(row["holds"]))
    Console(width=150).print(table)
    Path("bench.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
