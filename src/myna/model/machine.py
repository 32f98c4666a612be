"""What this machine has left."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes a new process may use: what the system has free, or what its control group still allows if that is less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    # Cached file pages count as used but are given back on demand.
    return free if limit == "max" else min(free, int(limit) - used + int(cached.get("inactive_file", 0)))
