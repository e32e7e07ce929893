"""Measure how long big pages take to write, to open and to filter: `python -m benchmarks pages`.

The rows are made up and go through the package's own writers; no model runs. The times are Chromium's own: when the
first row stood in the page, how long a search took from the key to the last row, and the longest task meanwhile, during
which the page does not react.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from icl_eval.analysis.comparison import Comparison, Difference
from icl_eval.analysis.sweeps import Sweep, SweepAnalysis, write_sweep
from icl_eval.reporting.pages.comparison_page import write_comparison_page
from icl_eval.reporting.pages.run_page import write_run_page
from icl_eval.reporting.pages.sweep_page import write_sweep_page
from icl_eval.runs.cells import Cell
from icl_eval.runs.folders import read_run
from icl_eval.runs.records import Record, RecordLog
from icl_eval.runs.reports import (
    SCHEMA_VERSION,
    Counts,
    MetricResult,
    Provenance,
    Report,
    RunInfo,
    TaskResult,
    Timing,
    write_report,
)

LETTERS = {
    "short": "abcdefghijklmnopqrstuvwxyz",
    "long": "abcdefghijklmnopqrstuvwxyz",
    "unicode": "日本語漢字仮名交文😀éاب",
}
LENGTHS = {"short": (10, 2), "long": (120, 250), "unicode": (10, 20)}
"""Numbers of words in a question and in a completion, by kind of row."""
PAGES = [
    *("run 1000 short", "run 64000 short", "run 64000 long", "run 64000 unicode"),
    *("compare 1000 short", "compare 64000 short", "sweep 100 short", "sweep 1000 short"),
]
COLUMNS = (
    *("page", "rows", "kind", "MB", "written, s", "peak MB", "first row, s", "longest task, ms"),
    *("first search, s", "next search, s", "longest task, ms", "heap MB"),
)
OBSERVE = """
(() => {
  window.seen = { firstRow: null, tasks: [] };
  new PerformanceObserver((list) => {
    for (const { startTime, duration } of list.getEntries()) seen.tasks.push([startTime, duration]);
  }).observe({ type: "longtask", buffered: true });
  const look = () => {
    if (document.querySelector("table.rows tbody td")) seen.firstRow = performance.now();
    else requestAnimationFrame(look);
  };
  look();
})();
"""
SEARCH = """
async ([place, text]) => {
  const output = document.querySelector(`${place} output`);
  const search = document.querySelector(`${place} input[type=search]`);
  const start = performance.now();
  output.textContent = "…";
  search.value = text;
  search.dispatchEvent(new Event("input", { bubbles: true }));
  while (true) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (output.textContent.includes(" of ") && !output.textContent.includes("…")) break;
    if (performance.now() - start > 60000) break;
  }
  const end = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 100));
  const during = seen.tasks.filter(([begin, length]) => begin + length >= start && begin <= end);
  return { ms: end - start, longest: Math.max(0, ...during.map(([, length]) => length)), found: output.textContent };
}
"""


def make_records(count: int, kind: str, seed: int = 0) -> Iterator[Record]:
    """Yield records with four shared demonstrations, whose words follow Zipf's law."""
    draw, shared = random.Random(seed), random.Random(99)
    words = ["".join(shared.choices(LETTERS[kind], k=shared.randint(2, 9))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    asking = random.Random(7)

    def text(source: random.Random, length: int) -> str:
        return " ".join(source.choices(words, weights, k=length))

    asked, answered = LENGTHS[kind]
    demonstrations = "".join(f"Q: {text(shared, asked)}\nA: {text(shared, answered)}\n\n" for _ in range(4))
    for number in range(count):
        question, target = text(asking, asked), text(asking, 2)
        right = draw.random() < 0.4
        completion = f" {text(draw, answered)}"
        yield Record(
            example_id=f"test-{number:06d}",
            doc={"question": question},
            targets=(target,),
            encoder=None,
            decoder=f"{demonstrations}Q: {question}\nA:",
            demonstration_ids=("pool-1", "pool-2", "pool-3", "pool-4"),
            shots_requested=4,
            shots_effective=4,
            completion=completion,
            prediction=completion.strip()[:200],
            metrics={"exact_match": float(right), "token_f1": round(draw.random(), 3)},
            prompt_tokens=100 + number % 50,
            completion_tokens=3,
            finish_reason="stop" if right else "length",
            prompt_hash=f"{draw.getrandbits(64):016x}",
        )


def write_run(folder: Path, count: int, kind: str, seed: int = 0) -> Report:
    """Write the files of a finished run with made-up records, and return its report."""
    folder.mkdir(parents=True, exist_ok=True)
    RecordLog(folder / "samples_qa.jsonl").finish(make_records(count, kind, seed))
    metrics = {name: MetricResult(0.4, 0.01, (0.38, 0.42), name, True) for name in ("exact_match", "token_f1")}
    counts = Counts(100, 80, 3, {"stop": count}, {}, {"4": count}, 0, {})
    run = RunInfo(
        model="made-up",
        architecture="decoder-only",
        template="labelled",
        placement="decoder",
        conventions={},
        num_fewshot=4,
        demonstrations="random",
        order="as_selected",
        control="none",
        leave_out=None,
        seed=0,
        decoding={"search": "greedy", "dtype": "float32", "batch_invariant": True, "tasks": {}},
        fingerprint="0123456789abcdef",
    )
    provenance = Provenance({"icl_eval": "0"}, None, "none", {}, {}, {}, (f"seed={seed}", "num_fewshot=4"))
    results = {"qa": TaskResult(count, 4, metrics, counts, None)}
    report = Report(SCHEMA_VERSION, run, results, Timing({}, None), provenance)
    write_report(report, folder / "report.json")
    return report


def prepare(page: str, count: int, kind: str, folder: Path) -> Path:
    """Write what a page is made of, and return the path of the page to be."""
    if page == "run":
        write_run(folder, count, kind)
        return folder / "report.html"
    if page == "compare":
        for seed, name in enumerate("ab"):
            write_run(folder / name, count, kind, seed)
        return folder / "compare.html"
    cells = []
    for number in range(count):
        name = f"num_fewshot={number % 5},seed={number // 5}"
        report = write_run(folder / name, 64, kind, number)
        overrides = (f"num_fewshot={number % 5}", f"seed={number // 5}")
        cells.append(Cell(name, overrides, report.run, report.results))
    write_sweep(Sweep(1, tuple(cells), SweepAnalysis((), (), ())), folder)
    return folder / "sweep.html"


def write(path: Path) -> None:
    """Write a page from the files beside it."""
    if path.name == "report.html":
        write_run_page(path.parent)
    elif path.name == "sweep.html":
        write_sweep_page(path.parent)
    else:
        runs = [read_run(path.parent / name) for name in "ab"]
        names = [str(run.folder) for run in runs]
        found = Difference(
            run=names[1], task="qa", metric="exact_match", higher_is_better=True, n=1, baseline_score=0.5, score=0.5,
            difference=0.0, ci95=(-0.1, 0.1), test=None, p_value=None, p_adjusted=None, better=(), worse=(),
        )  # fmt: skip
        write_comparison_page(Comparison(2, names[0], (names[1],), 0, 1000, (), (found,)), runs, path)


def measure(browser: Browser, path: Path) -> dict[str, Any]:
    """Open a page and search in it."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.add_init_script(OBSERVE)
    page.goto(path.as_uri(), wait_until="load", timeout=120_000)
    page.locator("table.rows tbody td").first.wait_for(timeout=120_000)
    page.wait_for_timeout(300)
    place = {"report.html": "#rows", "sweep.html": "#cells-rows"}.get(path.name, "#answers")
    opened = page.evaluate("({ row: seen.firstRow, longest: Math.max(0, ...seen.tasks.map(([, length]) => length)) })")
    first = page.evaluate(SEARCH, [place, "seed=1" if path.name == "sweep.html" else "99"])
    again = page.evaluate(SEARCH, [place, "seed=2" if path.name == "sweep.html" else "98"])
    heap = page.evaluate("performance.memory.usedJSHeapSize")
    page.close()
    return {"opened": opened, "first": first, "again": again, "heap": heap}


def measure_pages(arguments: Sequence[str]) -> None:
    """Print a row of Markdown for each page that is asked for."""
    parser = argparse.ArgumentParser("python -m benchmarks pages", description=__doc__)
    parser.add_argument(
        "pages", nargs="*", default=PAGES, help="'PAGE COUNT KIND': run, compare or sweep; short, long …"
    )
    options = parser.parse_args(arguments)
    print("| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", sep="\n")
    for words in options.pages:
        page, count, kind = words.split()
        print(
            "| " + " | ".join([page, f"{int(count):,}", kind, *measure_page(page, int(count), kind)]) + " |", flush=True
        )


def measure_page(page: str, count: int, kind: str) -> list[str]:
    """Write a page in a process of its own, open it, and return the cells of its row."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        target = prepare(page, count, kind, Path(name))
        command = [sys.executable, "-m", "benchmarks.pages", str(target)]
        start = time.perf_counter()
        peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        seconds = time.perf_counter() - start
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=False)
        found = measure(browser, target)
        browser.close()
        opened, first, again = found["opened"], found["first"], found["again"]
        return [
            *(f"{target.stat().st_size / 1e6:.1f}", f"{seconds:.1f}", f"{peak:.0f}"),
            *(f"{opened['row'] / 1e3:.2f}", f"{opened['longest']:.0f}"),
            *(f"{first['ms'] / 1e3:.2f}", f"{again['ms'] / 1e3:.2f}"),
            *(f"{max(first['longest'], again['longest']):.0f}", f"{found['heap'] / 1e6:.0f}"),
        ]


if __name__ == "__main__":  # a process that writes a page and says how much memory it took
    write(Path(sys.argv[1]))
    # A process begins with its parent's ru_maxrss, but with a peak of its own here.
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000)
