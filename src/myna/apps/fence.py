"""The fence of records, by its earlier name."""

from myna.records.fence import NONCE, RULE, fenced, nonce_of

__all__ = ["NONCE", "RULE", "fenced", "nonce_of"]
