"""schemathesis over /openapi.json: no 5xx, every reply as described, and the server alive afterwards."""

import subprocess
import sys
import urllib.request
from pathlib import Path

URL = sys.argv[1]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# What refuses by rules that no schema can tell is not asked to accept all that the schema does.
done = subprocess.run(
    [
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"{URL}/openapi.json",
        "--checks",
        CHECKS,
        "--max-examples",
        "30",
        "--seed",
        "4",
        "--exclude-path-regex",
        "models/unload",
    ]
)
with urllib.request.urlopen(f"{URL}/health") as reply:
    assert reply.status == 200
sys.exit(done.returncode)
