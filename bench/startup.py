"""The time of the first screen, and whether anything heavy was imported for it."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from bench.harness import BenchError
from bench.machine import load_average
from bench.sides import Options
from bench.spread import Spread
from bench.workload import StartupWorkload

HELP = "from luthier.cli.main import main; main()"
ASK = "\n".join(
    [
        "import sys",
        "from luthier.cli.main import main",
        "try:",
        "    main()",
        "finally:",
        "    print('heavy:', *(name for name in ('torch', 'transformers') if name in sys.modules))",
    ]
)


@dataclass(frozen=True)
class Startup:
    """Seconds of every start, and the heavy modules it imported."""

    workload: StartupWorkload
    seconds: Spread
    heavy: tuple[str, ...]
    load: float

    def misses(self) -> list[str]:
        """What of the goal was not reached, in words."""
        found = []
        if self.seconds.median >= self.workload.seconds:
            found.append(f"{self.seconds.show()} s; the goal is below {self.workload.seconds:g} s")
        if self.heavy:
            found.append(f"imports {', '.join(self.heavy)}")
        return found


def time_startup(workload: StartupWorkload, options: Options) -> Startup:
    """Start the command twice as often as there are pairs.

    Raises:
        BenchError: it fails.
    """
    load = load_average()
    seconds = []
    _run(HELP)
    for _ in range(2 * options.pairs):
        began = time.perf_counter()
        _run(HELP)
        seconds.append(time.perf_counter() - began)
    heavy = tuple(_run(ASK).splitlines()[-1].removeprefix("heavy:").split())
    result = Startup(workload, Spread.of(seconds), heavy, load)
    options.tell(f"{result.seconds.show()} s, heavy imports: {', '.join(heavy) or 'none'}")
    return result


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"luthier --help ended with code {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout
