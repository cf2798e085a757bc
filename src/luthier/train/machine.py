"""The machine as training finds it: memory that is left, memory in use, the rate of matrix products."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

SAMPLE_SECONDS = 0.02  # of the memory watch; reading takes about 20 microseconds
UNLIMITED = 1 << 60  # version 1 of control groups writes a number near 2**63 for no limit


def available_bytes(device: torch.device) -> int:
    """Memory that a process may still take on a device, in bytes.

    On the CPU the smaller of what the system has left and what the limits of this process's control
    groups (containers, job schedulers) leave; on CUDA what is free, with what torch holds for reuse.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    left = int(psutil.virtual_memory().available)
    limited = _left_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return left if limited is None else min(left, limited)


def give_back_memory() -> None:
    """Return what was freed to the system, as far as the C library does: what is in use is in use then."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def used_bytes(device: torch.device) -> int:
    """Memory in use: this process's resident set, or what tensors hold on CUDA."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


class MemoryWatch:
    """The highest memory in use while it was watched, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._peak = used_bytes(device)

    @property
    def peak_bytes(self) -> int:
        """So far."""
        self.look()
        return self._peak

    def look(self) -> None:
        """Take in the present."""
        on_cuda = self.device.type == "cuda"
        now = torch.cuda.max_memory_allocated(self.device) if on_cuda else used_bytes(self.device)
        self._peak = max(self._peak, now)


@contextlib.contextmanager
def watching_memory(device: torch.device) -> Iterator[MemoryWatch]:
    """Watch the memory in use: fifty times a second on the CPU, by torch's own count on CUDA.

    The system's high-water mark would be exact, but belongs to the whole life of the process, and
    setting it back would take it away from whoever else reads it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield MemoryWatch(device)
        return
    watch = MemoryWatch(device)
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            watch.look()

    thread = threading.Thread(target=sample, name="luthier-memory", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.float32, *, seconds: float = 0.3) -> float:
    """Floating-point operations per second of large square matrix products: what bounds any training.

    The size doubles from 512 until one product takes about a twentieth of `seconds`; the best of
    the products made in `seconds` counts, since other work on the machine only makes them slower.
    """
    began = time.perf_counter()
    size, best = 512, 0.0
    with torch.inference_mode():
        while True:
            a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
            into = torch.empty_like(a)
            took = min(_timed_product(a, b, into) for _ in range(2))
            best = max(best, 2 * size**3 / took)
            if size >= 16384 or 8 * took > seconds / 4:
                break
            size *= 2
        while time.perf_counter() - began < seconds:
            best = max(best, 2 * size**3 / _timed_product(a, b, into))
    return best


def _timed_product(a: torch.Tensor, b: torch.Tensor, into: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.mm(a, b, out=into)
    if a.is_cuda:
        torch.cuda.synchronize(a.device)
    return max(time.perf_counter() - began, 1e-9)


def _left_in_groups(membership: Path, root: Path) -> int | None:
    """Bytes under the tightest memory limit of the control groups this process is in; None without one.

    The kernel's documentation, cgroup-v2.rst and cgroup-v1/memory.rst: a limit holds for all groups
    below it, and page cache that is not in use (`inactive_file`) is given back before it is exceeded.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    left: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            left += _limits(root, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            left += _limits(root / "memory", path, *files)
    return min(left, default=None)


def _limits(root: Path, path: str, limit: str, usage: str, idle: str) -> list[int]:
    """What each group from `path` up to `root` leaves, of those that have a limit."""
    left = []
    group = root / path.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            break
        # in a container the path may be that of the host, and only the root be there
        with contextlib.suppress(OSError, ValueError):
            most = int((folder / limit).read_text())  # "max" is no number: no limit
            if most < UNLIMITED:
                used = int((folder / usage).read_text())
                left.append(max(0, most - used + _idle_bytes(folder / "memory.stat", idle)))
    return left


def _idle_bytes(stat: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(dict(row.split() for row in stat.read_text().splitlines()).get(name, 0))
    return 0
