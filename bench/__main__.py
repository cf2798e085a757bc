"""The commands: `python -m bench [WORKLOAD ...]`, and the studies, each with its own name."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from pathlib import Path

from bench.catalogue import WORKLOADS
from bench.harness import BenchError
from bench.measure import Result, measure
from bench.peers import LmEvalSettings, Settings, TransformersSettings, TrlSettings
from bench.report import Conditions, write_report
from bench.sides import Options, kind_of
from bench.workload import ChoiceWorkload, SweepWorkload, TrainingWorkload, WritingWorkload

MODEL = "smollm2-135m"
STUDIES = {
    "learning-rate": "bench.learning_rate.command",
    "adapter-kinds": "bench.adapter_kinds",
    "claims": "bench.claims.command",
    "remedies": "bench.remedies",
    "methods": "bench.methods",
    "checks": "bench.checks.command",
    "check-speed": "bench.check_speed",
}
MODEL_NAME = "SmolLM2-135M-Instruct"


def main() -> int:
    """Measure, print the report, write it where asked; 1 when a gate fails or a worker dies."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers end and their folder goes
    if study := STUDIES.get("".join(sys.argv[1:2])):
        return int(importlib.import_module(study).main(sys.argv[2:]))
    parser = _parser()
    given = parser.parse_args()
    unknown = [name for name in given.workloads if name not in WORKLOADS]
    if unknown or given.pairs < 1 or given.threads < 1:
        parser.error(
            f"unknown workloads: {', '.join(unknown)}" if unknown else "--pairs and --threads start at 1"
        )
    settings = _peer_settings(parser, given.peer)
    names = given.workloads or list(WORKLOADS)
    options = Options(given.pairs, given.threads, given.model, settings, _tell)
    results: list[Result] = []
    failed: dict[str, str] = {}
    text = ""
    began = time.perf_counter()
    for name in names:
        print(f"{name}: {WORKLOADS[name].what}", file=sys.stderr)
        try:
            results.append(measure(WORKLOADS[name], options))
        except BenchError as error:
            _tell(f"no result: {error}")
            worker = "\n" in str(error)  # with the end of its output, which may name folders
            failed[name] = f"a worker ended ({kind_of(error)})" if worker else str(error)
        minutes = (time.perf_counter() - began) / 60
        # after each workload, so that an interruption leaves what was measured
        left = [workload for other, workload in WORKLOADS.items() if other not in names]
        shown = MODEL_NAME if given.model == MODEL else "A model from a folder"
        conditions = Conditions(_command(given), shown, given.pairs, given.threads, minutes)
        text = write_report(results, failed, left, conditions)
        if given.out is not None:
            given.out.write_text(text, encoding="utf-8")
    if given.out is None:
        print(text)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Luthier against its peers. Studies have commands of their own: "
        + ", ".join(f"`python -m bench {name} --help`" for name in STUDIES),
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"of: {', '.join(WORKLOADS)}; default all"
    )
    parser.add_argument("--pairs", type=int, default=5, help="timed steps of each side")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side")
    parser.add_argument("--model", default=MODEL, help="smollm2-135m, or a folder that holds it")
    parser.add_argument("--out", type=Path, help="write the report to this Markdown file")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=SETTING",
        help="a workload's peer settings instead of a probe: w1=1,compile w2b=2 w5=4 w6a=4 w6b=32,static",
    )
    return parser


def _tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _peer_settings(parser: argparse.ArgumentParser, given: list[str]) -> dict[str, Settings]:
    found: dict[str, Settings] = {}
    for text in given:
        name, _, setting = text.partition("=")
        workload = WORKLOADS.get(name)
        try:
            if isinstance(workload, TrainingWorkload | SweepWorkload):
                found[name] = TrlSettings.parse(setting)
            elif isinstance(workload, ChoiceWorkload):
                found[name] = LmEvalSettings.parse(setting)
            elif isinstance(workload, WritingWorkload):
                found[name] = TransformersSettings.parse(setting)
            else:
                raise ValueError(f"{name!r} is no workload with a peer that has settings")
        except ValueError as error:
            parser.error(f"--peer {text}: {error}")
    return found


def _command(given: argparse.Namespace) -> str:
    parts = ["python -m bench", *given.workloads, f"--pairs {given.pairs}"]
    parts += [f"--threads {given.threads}"] * (given.threads != 2)
    parts += [f"--peer {text}" for text in given.peer]
    parts += ["--model FOLDER"] * (given.model != MODEL)
    return " ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
