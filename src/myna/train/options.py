"""Config <-> YAML and `--section.key value`. A key that is not known, or has no such value, is an error that names the nearest.

Later wins: the key's default, the method's own default, the YAML file, flags.
"""

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from myna.records import DataError
from myna.train.config import Config, Data, Lora, Model, Optim, Run

SECTIONS: dict[str, type] = {"model": Model, "data": Data, "optim": Optim, "lora": Lora, "run": Run}
Values = dict[str, dict[str, Any]]  # section -> key -> value


def read_config(
    method: str, options: type, defaults: Values, file: str | None = None, flags: Sequence[str] = ()
) -> Config:
    """The config of a run of this method. `options` is the dataclass of the method's own keys, `defaults` its own values of
    the common ones. Raises DataError naming the key."""
    sections = {**SECTIONS, method: options}
    values: Values = {name: dict(defaults.get(name, {})) for name in sections}
    for source, given in ((file, _from_file(file, method)), ("", _from_flags(flags))):
        for section, key, value in given:
            kind = _kind(sections, section, key, source)
            values[section][key] = _parse(value, kind, _shown(section, key, source))
    made = {name: cls(**values[name]) for name, cls in sections.items()}
    own = made.pop(method)
    return Config(method=method, options=own, **made)


def to_yaml(config: Config) -> str:
    """Every key of the run. Read again, it is the same config."""
    return yaml.safe_dump({"method": config.method} | plain(config), sort_keys=False, allow_unicode=True)


def plain(config: Config) -> Values:
    """Section -> key -> value, as YAML would say it."""
    values = {name: asdict(getattr(config, name)) for name in SECTIONS} | {config.method: asdict(config.options)}
    return {s: {k: list(v) if isinstance(v, tuple) else v for k, v in keys.items()} for s, keys in values.items()}


def explain(method: str, options: type, defaults: Values) -> str:
    """Every key with its default and its line, for --help."""
    lines = []
    for section, cls in {**SECTIONS, method: options}.items():
        lines.append("")
        for f in fields(cls):
            value = defaults.get(section, {}).get(f.name, f.default)
            shown = " ".join(value) if isinstance(value, tuple) else value
            lines.append(f"  --{section}.{f.name} {shown!s:<12}  {meanings(cls)[f.name]}")
    return "\n".join(lines)


def meanings(cls: type) -> dict[str, str]:
    """Key -> its line in the class's docstring."""
    found: dict[str, str] = {}
    names = {f.name for f in fields(cls)}
    last = ""
    for line in (cls.__doc__ or "").splitlines():
        word, _, rest = line.strip().partition("  ")
        if word in names:
            found[last := word] = rest.strip()
        elif last and line.strip():
            found[last] += " " + line.strip()
    return found


def _from_file(file: str | None, method: str) -> Iterator[tuple[str, str, Any]]:
    if file is None:
        return
    try:
        tree = yaml.load(Path(file).read_text(encoding="utf-8"), _Once) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise DataError(f"{file}: cannot be read as YAML: {e}") from None
    if not isinstance(tree, dict) or not all(isinstance(keys, dict) for name, keys in tree.items() if name != "method"):
        raise DataError(f"{file}: expected sections of keys, such as `optim: {{lr: 0.001}}`")
    if tree.get("method", method) != method:
        raise DataError(f"{file}: method is {tree['method']!r}, and the command says {method!r}. Take one of them.")
    for section, keys in tree.items():
        if section != "method":
            yield from ((str(section), str(key), value) for key, value in keys.items())


class _Once(yaml.SafeLoader):
    """YAML in which no key is said twice: the last would win, and nobody would be told."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [name for n, name in enumerate(names) if name in names[:n]]:
            raise yaml.MarkedYAMLError(problem=f"{twice[0]} is said twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _from_flags(flags: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """--a.b value, --a.b=value, --a.b first second for a list, --a.b alone for true."""
    at, said = 0, set[tuple[str, str]]()
    while at < len(flags):
        name, equals, value = flags[at].partition("=")
        at += 1
        if not name.startswith("--"):
            raise DataError(f"{flags[at - 1]!r} is not a flag; keys are given as --section.key value")
        given = [value] if equals else []
        while not equals and at < len(flags) and not flags[at].startswith("--"):
            given.append(flags[at])
            at += 1
        section, dot, key = name[2:].partition(".")
        key = key.replace("-", "_")
        if not dot:
            raise DataError(
                f"{name} names no section; keys are given as --section.key value, such as {_likely(section)}"
            )
        if (section, key) in said:
            raise DataError(f"{name} is given twice; several values stand behind one: {name} A B")
        said.add((section, key))
        yield section, key, given or ["true"]


def _likely(key: str) -> str:
    """The flag that was meant by a key without its section."""
    key = key.replace("-", "_")
    return next((f"--{name}.{key}" for name, cls in SECTIONS.items() if key in meanings(cls)), "--optim.lr 0.001")


def _kind(sections: Mapping[str, type], section: str, key: str, source: str | None) -> Any:
    known = [f"{name}.{f.name}" for name, cls in sections.items() for f in fields(cls)]
    asked = f"{section}.{key}"
    if asked not in known:
        by_key = [name for name in known if name.endswith(f".{key}")]
        near = by_key or difflib.get_close_matches(asked, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else " --help lists all keys."
        raise DataError(f"{_shown(section, key, source)} is not a key of this method.{hint}")
    return get_type_hints(sections[section], include_extras=True)[key]


def _shown(section: str, key: str, source: str | None) -> str:
    return f"{source}: {section}.{key}" if source else f"--{section}.{key}"


def _parse(value: Any, kind: Any, where: str) -> Any:
    """A value from YAML or the words of a flag, as the key's type."""
    origin = get_origin(kind)
    if origin is Annotated:
        kind, within = get_args(kind)
        found = _parse(value, kind, where)
        if not within.holds(found):
            raise DataError(f"{where}: {found} is not {within}")
        return found
    if origin is tuple:
        of = get_args(kind)[0]
        items = value if isinstance(value, list) else [value]
        return tuple(_parse(item, of, where) for item in items)
    if origin in (Union, types.UnionType):
        kinds = [k for k in get_args(kind) if k is not type(None)]
        return None if value in (None, ["none"]) else _parse(value, kinds[0], where)
    if isinstance(value, list):
        if len(value) != 1:
            raise DataError(f"{where} takes one value, not {len(value)}: {' '.join(map(str, value))[:80]}")
        value = value[0]
    if origin is Literal:
        if value not in get_args(kind):
            raise DataError(
                f"{where}: {value!r} is not one of {', '.join(str(v) or '(nothing)' for v in get_args(kind))}"
            )
        return value
    return _scalar(value, kind, where)


def _whole(value: float) -> int:
    if not value.is_integer():
        raise ValueError(value)
    return int(value)


def _scalar(value: Any, kind: type, where: str) -> Any:
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if kind in (int, float) and not isinstance(value, bool):
        try:
            return kind(value) if kind is float or not isinstance(value, float) else _whole(value)
        except (TypeError, ValueError):
            pass
    wanted = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}.get(kind, str(kind))
    raise DataError(f"{where}: {value!r} is not {wanted}")
