"""The command: `python -m bench [WORKLOAD ...] [--pairs N] [--out FILE]`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from bench.catalogue import SFT
from bench.harness import BenchError
from bench.report import Conditions, write_report
from bench.sft import PeerSettings, compare_sft

MODEL = "smollm2-135m"
MODEL_NAME = "SmolLM2-135M-Instruct"


def main() -> int:
    """Measure, print the report, write it where asked; 1 when a gate fails or a worker dies."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Luthier against its peers.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of: {', '.join(SFT)}; default all")
    parser.add_argument("--pairs", type=int, default=5, help="timed steps of each side")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side")
    parser.add_argument("--model", default=MODEL, help="smollm2-135m, or a folder that holds it")
    parser.add_argument("--out", type=Path, help="write the report to this Markdown file")
    parser.add_argument("--peer", help="peer settings instead of a probe, as '4', '8,free' or '2,compile'")
    given = parser.parse_args()
    unknown = [name for name in given.workloads if name not in SFT]
    if unknown or given.pairs < 1 or given.threads < 1:
        parser.error(
            f"unknown workloads: {', '.join(unknown)}" if unknown else "--pairs and --threads start at 1"
        )
    settings = _peer_settings(parser, given.peer)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers end and their folder goes
    names = given.workloads or list(SFT)
    results = []
    began = time.perf_counter()
    try:
        for name in names:
            print(f"{name}: {SFT[name].what}", file=sys.stderr)
            results.append(
                compare_sft(
                    SFT[name],
                    pairs=given.pairs,
                    threads=given.threads,
                    model=given.model,
                    settings=settings,
                    tell=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
                )
            )
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    command = "python -m bench " + " ".join([*names, "--pairs", str(given.pairs)])
    command += f" --threads {given.threads}" * (given.threads != 2) + f" --peer {given.peer}" * bool(
        given.peer
    )
    command += " --model FOLDER" if given.model != MODEL else ""
    shown = MODEL_NAME if given.model == MODEL else "A model from a folder"
    minutes = (time.perf_counter() - began) / 60
    text = write_report(results, Conditions(command, shown, given.pairs, given.threads, minutes))
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


def _peer_settings(parser: argparse.ArgumentParser, text: str | None) -> PeerSettings | None:
    if text is None:
        return None
    size, *flags = text.split(",")
    if size not in ("1", "2", "4", "8") or set(flags) - {"free", "compile"}:
        parser.error(f"--peer {text!r}: expected 1, 2, 4 or 8, then free and compile")
    return PeerSettings(int(size), "free" in flags, "compile" in flags)


if __name__ == "__main__":
    sys.exit(main())
