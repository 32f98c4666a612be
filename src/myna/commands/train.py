"""myna train: a method, its data, a run directory."""

import sys
from types import ModuleType
from typing import Annotated

from cyclopts import Parameter

from myna.records import DataError


def run(*words: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Usage: myna train METHOD [CONFIG.yaml] [--section.key value ...], or myna train --resume RUN

    `myna train --report RUN` makes the run's report.html again.

    `myna train METHOD --help` lists every key of a method; `--print-config` prints the config as it would be; `--plan` says what
    exactly this run would take, and stops.
    """
    from myna.commands.plan import Machine, show
    from myna.train.method import find, known
    from myna.train.options import explain, to_yaml
    from myna.train.report import write_report
    from myna.train.run import configure, planned

    asked = {word for word in words if word in ("--help", "--print-config", "--plan", "--changed")}
    rest = [word for word in words if word not in asked]
    if not rest and asked == {"--help"}:
        methods = (f"  {name:<12} {_line(find(name))}" for name in known())
        print(run.__doc__, "Methods:", *methods, sep="\n")
        return
    if not rest:
        raise DataError(
            f"train what? myna train METHOD --data.train FILES --run.out DIR; methods: {', '.join(known())}"
        )
    if rest[0] == "--report":
        if len(rest) != 2:
            raise DataError("the report of which run? myna train --report RUN")
        print(write_report(rest[1]))
        return
    if rest == ["--resume"]:
        raise DataError("resume which run? myna train --resume RUN")
    method, *rest = rest
    file = rest.pop(0) if rest and not rest[0].startswith("--") else None
    if "--help" in asked:
        module = find(method)
        print(f"{module.__doc__}\nKeys, with their defaults:\n{explain(method, module.Options, module.DEFAULTS)}")
        return
    if "--print-config" in asked:
        print(to_yaml(configure(method, file, rest)), end="")
        return
    if "--changed" in asked and method != "--resume":
        raise DataError("--changed is of a run that goes on: myna train --resume RUN --changed")
    if "--plan" in asked:
        show(planned(configure(method, file, rest)), Machine())
        return
    _train(method, file, rest, changed="--changed" in asked)


def _train(method: str, file: str | None, rest: list[str], *, changed: bool) -> None:
    """Of METHOD begin a run; of --resume go on with the one in `file`."""
    from myna.train.parallel import joined
    from myna.train.run import begin, configure, resume

    with joined() as world:
        if method == "--resume":
            ended = resume(file or "", rest, changed=changed, world=world)
        else:
            with world.first():
                config = configure(method, file, rest)
            ended = begin(config, world)
    if ended.model is None:
        if world.is_main:
            print(f"saved; go on with: myna train --resume {ended.run}", file=sys.stderr)
        sys.exit(130)
    if world.is_main:
        print(ended.model)


def _line(module: ModuleType) -> str:
    return (module.__doc__ or "").partition(":")[0].replace("\n", " ")
