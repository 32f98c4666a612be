"""What a user agreed to of each MCP server's tools, in a JSON file of his: a hash of the definition and the effect he gave it.

{"servers": {"files": {"read_file": {"definition": "<sha256>", "effect": "read"}}}}
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from myna.apps.tools.tool import EFFECTS, Effect
from myna.records import DataError, Json

MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Pins:
    """The file. One that does not exist is empty."""

    path: Path

    def of(self, server: str, tool: str) -> tuple[str, Effect] | None:
        """(the hash, the effect) that was agreed to."""
        row = self._read().get(server, {}).get(tool)
        return (row["definition"], row["effect"]) if row else None

    def agree(self, server: str, tool: str, definition: str, effect: Effect) -> None:
        """Write down that this definition may be called from now on."""
        servers = self._read()
        servers.setdefault(server, {})[tool] = {"definition": definition, "effect": effect}
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        part.write_text(json.dumps({"servers": servers}, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        part.replace(self.path)

    def _read(self) -> dict[str, Json]:
        """Raises DataError when the file is not what `agree` writes: a damaged one must not look like an empty one."""
        if not self.path.exists():
            return {}
        try:
            if self.path.stat().st_size > MOST_BYTES:
                raise ValueError(f"it is larger than {MOST_BYTES} bytes")
            servers = json.loads(self.path.read_text())["servers"]
            for row in (row for tools in servers.values() for row in tools.values()):
                if not (isinstance(row["definition"], str) and row["effect"] in EFFECTS):
                    raise ValueError(f"{str(row)[:100]} is no definition with an effect")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            said = f"{type(e).__name__}: {e}"
            raise DataError(
                f"{self.path} is no file of agreed tools: {said}. Mend it, or delete it and agree anew."
            ) from None
        return servers
