"""Processes that train together, as torchrun would start them, kept alive over a module's tests: to start one takes seconds."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from myna.train.parallel import joined

LONGEST = 120  # seconds a job may take before it counts as hung


class Several:
    """`of(job, *args)` is what job(world, *args) returned in each process. AssertionError with the trace of the first that raised,
    or if one hangs; then all are ended, since they wait for each other, and the next job has new ones."""

    def __init__(self, size: int):
        self.size = size
        self.started: dict[Connection, BaseProcess] = {}

    def __call__(self, job: Callable[..., Any], *args: object) -> list[Any]:
        try:
            return self._do(job, args)
        except BaseException:
            self.end()
            raise

    def _do(self, job: Callable[..., Any], args: tuple[object, ...]) -> list[Any]:
        self.started = self.started or _start(self.size)
        for pipe in self.started:
            pipe.send((job, args))
        found: dict[Connection, Any] = {}
        while waiting := [pipe for pipe in self.started if pipe not in found]:
            ready = wait(waiting, LONGEST)
            assert ready, f"{len(waiting)} of {self.size} processes hang"
            for pipe in ready:
                assert isinstance(pipe, Connection)
                good, found[pipe] = pipe.recv()
                assert good, found[pipe]
        return [found[pipe] for pipe in self.started]

    def end(self) -> None:
        for process in self.started.values():
            process.kill()
            process.join()
        self.started = {}


@contextmanager
def several(size: int) -> Iterator[Several]:
    found = Several(size)
    try:
        yield found
    finally:
        found.end()


def _start(size: int) -> dict[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    started: dict[Connection, BaseProcess] = {}
    for rank in range(size):
        mine, theirs = context.Pipe()
        started[mine] = context.Process(target=_serve, args=(rank, size, port, theirs), daemon=True)
        started[mine].start()
        theirs.close()  # so that the pipe of a process that died ends
    return started


def _serve(rank: int, size: int, port: int, pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined() as world:
        while True:
            job, args = pipe.recv()
            try:
                pipe.send((True, job(world, *args)))
            except BaseException:
                pipe.send((False, f"process {rank}:\n{traceback.format_exc()}"))
