"""The machine's limit: fp32 matrix products of a size at which nothing else counts."""

from __future__ import annotations

import time

import torch

from bench.protocol import Line

SIZE = 2048
SECONDS = 1.0


def main() -> None:
    """One rate, in floating-point operations per second, for every go."""
    line = Line()
    torch.set_num_threads(line.receive()["threads"])
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    product = torch.empty(SIZE, SIZE)
    torch.mm(a, b, out=product)
    line.send(event="ready")
    while True:
        line.receive()
        count = 0
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            torch.mm(a, b, out=product)
            count += 1
        seconds = time.perf_counter() - began
        line.send(event="rate", rate=2 * SIZE**3 * count / seconds)


if __name__ == "__main__":
    main()
