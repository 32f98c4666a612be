"""The child that runs a stranger's Python: `python -I -S jail.py STATUS_FD`, with an order in JSON on stdin. Standard library only.

This process (A) stays outside and maps user ids. B enters new namespaces: user, network, mounts, processes, IPC, host name. C is the
first process of the new ones: it builds a root of its own out of a tmpfs, with Python and its libraries bound read-only, and moves
into it. D gives up every privilege, is limited, and becomes Python. When C or A ends, so does everything that D began.

The line "ready" on STATUS_FD says that all of this was done before the code ran; anything else there is why it was not.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2
PDEATHSIG, NO_NEW_PRIVS = 1, 38  # of prctl
INSIDE = 1000  # the user that the code runs as, inside
NOBODY = 65534  # and outside, where we are root
HERE = "/box"  # the one directory it may write in

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    status = int(sys.argv[1])
    os.set_inheritable(status, False)
    order = json.loads(sys.stdin.buffer.read())
    sys.exit(_weak(order, status) if order["weak"] else _outside(order, status))


def _ask(name: str, *args: Any) -> None:
    """A call of libc's. Raises OSError with its errno."""
    if getattr(libc, name)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    texts = [text.encode() if text else None for text in (source, target, kind, data)]
    _ask("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])


def _outside(order: dict[str, Any], status: int) -> int:
    """A: waits until B is in its namespaces, and says there who is who."""
    entered, mapped = os.pipe(), os.pipe()
    b = os.fork()
    if not b:
        _guarded(status, lambda: _enter(order, status, entered[1], mapped[0]))
    os.close(entered[1])
    with suppress(OSError):
        if os.read(entered[0], 1):
            _guarded(status, lambda: _map(b), leave=False)
            os.write(mapped[1], b"m")
    return _wait(b)


def _map(b: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    root = uid == 0  # root is mapped for as long as the root is built; the code runs as nobody
    if not root:
        _write(f"/proc/{b}/setgroups", "deny")
    _write(f"/proc/{b}/uid_map", f"0 0 1\n{INSIDE} {NOBODY} 1\n" if root else f"{INSIDE} {uid} 1\n")
    _write(f"/proc/{b}/gid_map", f"0 0 1\n{INSIDE} {NOBODY} 1\n" if root else f"{INSIDE} {gid} 1\n")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _guarded(status: int, work: Any, *, leave: bool = True) -> None:
    """Whatever goes wrong before the code runs is told to the parent, and the code does not run."""
    try:
        code = work()
    except BaseException as e:
        os.write(status, f"{type(e).__name__}: {e}\n".encode())
        os._exit(125)
    if leave:
        os._exit(code)


def _enter(order: dict[str, Any], status: int, entered: int, mapped: int) -> int:
    """B."""
    _ask("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    root = os.geteuid() == 0
    _ask("unshare", NEWUSER | NEWNS | NEWNET | NEWPID | NEWIPC | NEWUTS)
    os.write(entered, b"e")
    if not os.read(mapped, 1):
        raise OSError("the user ids were not mapped")
    c = os.fork()
    if not c:
        _guarded(status, lambda: _first(order, status, root))
    return _wait(c)


def _first(order: dict[str, Any], status: int, root: bool) -> int:
    """C: the first process inside, with nothing left that it did not bring."""
    _ask("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    nothing = os.open("/dev/null", os.O_RDWR)
    with suppress(OSError):  # no further namespaces, which have been the way to many holes of kernels
        _write("/proc/sys/user/max_user_namespaces", "0")
    _new_root(order)
    _write(f"{HERE}/main.py", order["code"])
    os.dup2(nothing, 0)
    d = os.fork()
    if not d:
        _guarded(status, lambda: _become(order, status, root))
    return _reap(d)


def _new_root(order: dict[str, Any]) -> None:
    _mount("none", "/", flags=REC | PRIVATE)
    new = order["root"]
    _mount("tmpfs", new, "tmpfs", NOSUID | NODEV, f"size={order['disk']},nr_inodes=4096,mode=755")
    for path in order["seen"]:
        if os.path.islink(path):
            os.symlink(os.readlink(path), new + path)
        elif os.path.exists(path):
            _bind(path, new + path)
    os.makedirs(new + HERE)
    os.chmod(new + HERE, 0o777)
    os.chdir(new)
    _ask("pivot_root", b".", b".")
    _ask("umount2", b".", DETACH)
    os.chdir(HERE)


def _bind(path: str, target: str) -> None:
    """Read-only. Flags that the mount has already may not be taken from it."""
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT, 0o644))
    _mount(path, target, flags=BIND | REC)
    keep = os.statvfs(target).f_flag
    kept = sum(mine for mine, theirs in ((NOEXEC, os.ST_NOEXEC), (1024, os.ST_NOATIME)) if keep & theirs)
    relatime = (1 << 21) if keep & os.ST_RELATIME else 0
    _mount("none", target, flags=REMOUNT | BIND | RDONLY | NOSUID | NODEV | kept | relatime)


def _become(order: dict[str, Any], status: int, root: bool) -> int:
    """D."""
    if root:
        os.setgroups([])
        os.setresgid(INSIDE, INSIDE, INSIDE)
        os.setresuid(INSIDE, INSIDE, INSIDE)
    _ask("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    _limit(order)
    os.write(status, b"ready\n")
    env = {"HOME": HERE, "TMPDIR": HERE, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    os.execve(order["python"], [order["python"], "-I", "-S", "-B", "-X", "utf8", f"{HERE}/main.py"], env)


def _weak(order: dict[str, Any], status: int) -> int:
    """Limits alone: the code sees the files of whoever runs it, and the network."""
    os.chdir(order["root"])
    _write("main.py", order["code"])
    os.dup2(os.open("/dev/null", os.O_RDWR), 0)
    d = os.fork()
    if d:
        return _wait(d)

    def work() -> None:
        _ask("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _ask("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
        _limit(order)
        os.write(status, b"ready\n")
        env = {"HOME": order["root"], "TMPDIR": order["root"], "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        os.execve(order["python"], [order["python"], "-I", "-S", "-B", "-X", "utf8", "main.py"], env)

    _guarded(status, work)
    return 125


def _limit(order: dict[str, Any]) -> None:
    limits = {
        resource.RLIMIT_CPU: order["cpu"],
        resource.RLIMIT_AS: order["memory"],
        resource.RLIMIT_FSIZE: order["disk"],
        resource.RLIMIT_NOFILE: order["files"],
        resource.RLIMIT_CORE: 0,
    }
    if not order["weak"]:  # it counts all processes of a user: outside a namespace of its own it would count yours
        limits[resource.RLIMIT_NPROC] = order["processes"]
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))


def _reap(d: int) -> int:
    """Waits for D and whatever orphans are left to the first process; when this ends, the kernel ends the rest."""
    while True:
        pid, found = os.wait()
        if pid == d:
            return _code(found)


def _wait(pid: int) -> int:
    return _code(os.waitpid(pid, 0)[1])


def _code(found: int) -> int:
    code = os.waitstatus_to_exitcode(found)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
