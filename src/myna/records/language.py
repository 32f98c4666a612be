"""What we say ourselves: in which language, and one of a thing or several."""


def is_chinese(text: str) -> bool:
    """Whether anything of it is Chinese: a question in two languages is answered in Chinese, as its writer reads both."""
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def counted(number: int, one: str, several: str = "") -> str:
    """ "1 chunk", "1,204 chunks", "2 entities"."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
