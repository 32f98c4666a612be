"""A database's text as people and models are shown it: nothing in it moves a cursor, hides or starts a line of its own."""


def shown(text: str) -> str:
    """Line ends and tabs stay; other control, format and unassigned characters become \\u escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)


def one_line(text: str, most: int) -> str:
    """On one line, and no longer than `most` characters."""
    text = shown(text).replace("\n", "\\n").replace("\t", "\\t")
    return text if len(text) <= most else text[: most - 1] + "…"


def cell(value: object) -> str:
    """A cell for reading: a float with 12 digits, which is what is left of 37.62 after sums in binary."""
    return "NULL" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)
