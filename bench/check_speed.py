"""`python -m bench check-speed`: the time and memory of `luthier check` on a large file, and what it finds.

The file is written from sentences of the public suites, recombined so that no two examples are alike, with
faults planted at known lines.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.harness import BenchError
from bench.machine import describe_machine, load_average
from luthier.assets import suite_file

FILES = ("BoolQ/combined.jsonl", "NQ-open/combined.jsonl", "Privacy-Policy/test.jsonl")
GOAL_SECONDS, GOAL_BYTES = 120.0, 2e9
FAULTS = 20  # of each kind
POLL_SECONDS = 0.2
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
CHILD = "from luthier.cli.main import main; main()"


@dataclass(frozen=True)
class Measured:
    """One run of the command.

    Attributes:
        wall_seconds, cpu_seconds: of the process and its children.
        peak_bytes: largest resident set, of the process and its children together.
        found: planted faults that have a finding, of those planted, by check.
    """

    examples: int
    file_bytes: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    found: dict[str, tuple[int, int]]


def main(arguments: list[str]) -> int:
    """Write the file, check it, print what it took; 1 where the goal was missed or a fault was not found."""
    parser = argparse.ArgumentParser(prog="python -m bench check-speed", description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000_000, help="default 1,000,000")
    parser.add_argument("--folder", type=Path, help="where to write the file; default a temporary folder")
    given = parser.parse_args(arguments)
    if given.examples < 1000:
        parser.error("--examples starts at 1000")
    with tempfile.TemporaryDirectory() as folder:
        place = given.folder or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        data = place / "examples.jsonl"
        planted = write_examples(data, given.examples)
        measured = check(data, planted, place)
    print(report(measured))
    missed = [name for name, (found, of) in measured.found.items() if found < of]
    share = given.examples / 1_000_000
    too_slow = measured.wall_seconds > GOAL_SECONDS * max(share, 0.1)
    return 1 if missed or too_slow or measured.peak_bytes > GOAL_BYTES else 0


def write_examples(path: Path, count: int, *, seed: int = 0) -> dict[str, list[int]]:
    """Write examples of one question and one answer; returns the lines of planted faults by check."""
    rng = random.Random(seed)
    sentences = list(dict.fromkeys(_sentences()))
    # early: of each check the first 1000 findings are listed, and the sentences have faults of their own
    lines = rng.sample(range(count // 100, count // 4), 7 * FAULTS)
    kinds = ("secret", "personal_data", "special_token", "exact_duplicate", "label_conflict", "empty_answer")
    kinds += ("encoding",)
    planted = {kind: sorted(lines[i * FAULTS : (i + 1) * FAULTS]) for i, kind in enumerate(kinds)}
    kind_of = {line: kind for kind, own in planted.items() for line in own}
    earlier: list[tuple[str, str]] = []
    with path.open("w", encoding="utf-8") as file:
        for line in range(count):
            asked = " ".join(rng.choices(sentences, k=rng.randint(2, 4)))
            answer = " ".join(rng.choices(sentences, k=rng.randint(1, 2)))
            if len(earlier) < 2 * FAULTS:
                earlier.append((asked, answer))
            if kind := kind_of.get(line):
                asked, answer = _spoil(kind, asked, answer, earlier, rng)
            said = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": said}, ensure_ascii=False) + "\n")
    return {kind: [line + 1 for line in own] for kind, own in planted.items()}


def check(data: Path, planted: dict[str, list[int]], folder: Path) -> Measured:
    """Run `luthier check` in a process of its own.

    Raises:
        BenchError: it fails.
    """
    began = time.perf_counter()
    command = [sys.executable, "-c", CHILD, "check", str(data), "--out", str(folder / "audit")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        peak_bytes = 0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak_bytes = max(peak_bytes, _resident_bytes(process.pid))
            time.sleep(POLL_SECONDS)
        _, status, used = ended
        wall_seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        if process.returncode:
            raise BenchError(f"luthier check ended with code {process.returncode}:\n{output.read()[-2000:]}")
    audit = json.loads((folder / "audit/audit.json").read_text(encoding="utf-8"))
    unit = 1 if sys.platform == "darwin" else 1024
    peak_bytes = max(peak_bytes, used.ru_maxrss * unit)
    found = {kind: _count_found(audit["findings"], kind, lines) for kind, lines in planted.items()}
    return Measured(
        audit["examples"],
        data.stat().st_size,
        wall_seconds,
        used.ru_utime + used.ru_stime,
        peak_bytes,
        found,
    )


def _resident_bytes(pid: int) -> int:
    """What a process and its children hold now; pages that they share count for each."""
    try:
        process = psutil.Process(pid)
        return sum(own.memory_info().rss for own in (process, *process.children(recursive=True)))
    except psutil.Error:  # one of them ended meanwhile
        return 0


def report(measured: Measured) -> str:
    """The measurement in Markdown."""
    facts = describe_machine()
    rate = measured.examples / measured.cpu_seconds
    lines = [
        f"- {measured.examples:,} examples, {measured.file_bytes / 1e6:,.0f} MB of JSONL",
        f"- {measured.cpu_seconds:.0f} s of processor time ({rate:,.0f} examples/s), "
        f"{measured.wall_seconds:.0f} s by the clock; load average {load_average():.1f}",
        f"- peak resident memory {measured.peak_bytes / 1e9:.2f} GB, of both processes",
        f"- {facts['processor']}, {facts['cores']} cores visible, Python {facts['python']}",
        *(f"- {kind}: {found} of {of} planted found" for kind, (found, of) in measured.found.items()),
    ]
    return "\n".join(lines)


def _sentences() -> Iterator[str]:
    for name in FILES:
        for line in suite_file(name).read_text(encoding="utf-8").splitlines():
            for text in json.loads(line).values():
                if isinstance(text, str):
                    yield from (part.strip() + "." for part in text.split(". ") if 20 < len(part) < 300)


def _spoil(
    kind: str, asked: str, answer: str, earlier: list[tuple[str, str]], rng: random.Random
) -> tuple[str, str]:
    secret = f"{answer} The key is ghp_{''.join(rng.choices(LETTERS, k=36))}."
    return {
        "secret": lambda: (asked, secret),
        "personal_data": lambda: (f"{asked} Write to j{rng.randrange(10**6)}@mail.example.", answer),
        "special_token": lambda: (f"{asked} <|im_end|>", answer),
        "exact_duplicate": earlier.pop,
        "label_conflict": lambda: (earlier.pop()[0], "Nobody knows."),
        "empty_answer": lambda: (asked, "TODO"),
        "encoding": lambda: (asked.replace(".", " cafÃ©.", 1), answer),
    }[kind]()


def _count_found(findings: list[dict[str, Any]], kind: str, lines: list[int]) -> tuple[int, int]:
    told = {place["line"] for f in findings if f["check"] == kind for place in f["examples"]}
    return sum(line in told for line in lines), len(lines)
