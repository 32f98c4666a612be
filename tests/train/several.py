"""Processes that train together, as torchrun would start them, kept alive over a module's tests: to start one takes seconds."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from myna.train.parallel import joined

LONGEST = 120  # seconds a job may take before it counts as hung


class Several:
    """`of(job, *args)` is what job(world, *args) returned in each process. AssertionError with the trace if it raised."""

    def __init__(self, pipes: list[Connection]):
        self.pipes = pipes

    def __call__(self, job: Callable[..., Any], *args: object) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((job, args))
        found = []
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(LONGEST), f"process {rank} hangs"
            good, value = pipe.recv()
            assert good, f"process {rank}:\n{value}"
            found.append(value)
        return found


@contextmanager
def several(size: int) -> Iterator[Several]:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    pipes, started = [], []
    for rank in range(size):
        mine, theirs = context.Pipe()
        pipes.append(mine)
        started.append(context.Process(target=_serve, args=(rank, size, port, theirs), daemon=True))
        started[-1].start()
    try:
        yield Several(pipes)
    finally:
        for process in started:
            process.kill()
            process.join()


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
                pipe.send((False, traceback.format_exc()))
