"""Killed, starved, contradicted, used by many: an index stays whole, and says what is wrong."""

import asyncio
import hashlib
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from test_file_index import TEXTS, Letters, contents, document, filled, search

from myna.apps.index.file import FileIndex
from myna.apps.index.qdrant import QdrantError, QdrantIndex
from myna.apps.index.reading import Document, read_file
from myna.apps.index.store import IndexFileError
from myna.provider import Embedder
from myna.records import Embedding, Passage, ProviderError, Vectors

CHILDREN = """
import asyncio, os, shutil, sys
sys.path[:0] = [{tests!r}]
from test_index_breaks import many
from test_file_index import Letters
from myna.apps.index.file import FileIndex
FileIndex({path!r} + "0").close()
for last in range(1, {points}, 2):
    shutil.copy({path!r} + "0", {path!r} + str(last))
    if last > 8: os.wait()  # four at once wait for the disk
    if not os.fork():
        index = FileIndex({path!r} + str(last), Letters(room=10**6))
        left = [last]
        def tick(statement):  # SQLite calls it before each statement; the last one never begins
            left[0] -= 1
            if not left[0]: os.kill(os.getpid(), 9)
        index.store._db.set_trace_callback(tick)
        asyncio.run(index.add(many()))
        os._exit(0)
for _ in range(4): os.wait()
"""


def many() -> list[Document]:
    return [
        document(f"{n}.txt", "\n\n".join(f"Passage {n} {k} 段落。 " + f"word{n} " * 120 for k in range(2)))
        for n in range(3)
    ]


def test_killed_before_any_statement_of_adding_every_document_is_whole_or_not_there(tmp_path: Path) -> None:
    points = 102  # the adding takes 100 statements
    code = CHILDREN.format(tests=str(Path(__file__).parent), path=str(tmp_path / "i"), points=points)
    subprocess.run([sys.executable, "-c", code], check=True)
    fresh, seen = FileIndex(tmp_path / "fresh", Letters(room=10**6)), set()
    bare: dict[tuple[str, ...], object] = {}
    asyncio.run(fresh.add(many()))
    whole = contents(fresh)
    for last in range(1, points, 2):
        index = FileIndex(tmp_path / f"i{last}", Letters(room=10**6))
        there = tuple(one.name for one in asyncio.run(index.documents()))
        seen.add(len(there))
        if there not in bare:
            made = FileIndex(tmp_path / f"bare{last}")
            asyncio.run(made.add(one for one in many() if str(one.path) in there))
            bare[there] = contents(made)
            made.close()
        assert contents(index) | {"vectors": []} == bare[there], last
        asyncio.run(index.add(many()))  # goes on where it was
        assert contents(index) == whole, last
        index.close()
    assert seen == {0, 1, 2, 3}


def test_searching_while_others_add_and_remove_sees_one_state_at_a_time(tmp_path: Path) -> None:
    index = filled(tmp_path / "i", embedder=Letters(room=10**6))
    stop, wrong = threading.Event(), list[str]()

    def look() -> None:
        mine = FileIndex(tmp_path / "i", Letters(room=10**6))
        while not stop.is_set():
            for hit in asyncio.run(mine.search("twin stone bridge 桥")).hits:
                wrong.extend([] if hit.names else ["a hit without a name"])
                other = [one for one in ("left.txt", "right.txt") if one in hit.names]
                wrong.extend([hit.text] if other and "twin" not in hit.text else [])
        mine.close()

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(15):
        asyncio.run(index.add([document("left.txt", f"The twin stone {n}."), document("right.txt", f"Its twin {n}.")]))
        asyncio.run(index.remove(["left.txt", "right.txt"]))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


class Changing(Letters):
    """Its vectors have so many numbers, or are none."""

    def __init__(self, size: int, fill: float | None = None, short: int = 0):
        super().__init__()
        self.size, self.fill, self.short = size, fill, short

    async def embed(self, texts: Sequence[Passage], how: Embedding = Embedding()) -> Vectors:
        rows = (
            np.ones((len(texts) - self.short, self.size), np.float32)
            if self.fill is None
            else np.full((len(texts), self.size), self.fill)
        )
        return Vectors(rows.astype(np.float32), 0)


def opened(backend: str, path: Path, embedder: Embedder) -> FileIndex | QdrantIndex:
    if backend == "qdrant":
        pytest.importorskip("qdrant_client")
        return QdrantIndex(":memory:#test", embedder)
    return FileIndex(path, embedder)


@pytest.mark.parametrize("backend", ["file", "qdrant"])
def test_a_model_whose_vectors_change_their_size_is_refused_and_words_go_on(tmp_path: Path, backend: str) -> None:
    index = opened(backend, tmp_path / "i", Changing(32))
    asyncio.run(index.add([document("cats.md", TEXTS["cats.md"])]))
    index.embedder = Changing(16)
    wrong = (IndexFileError, QdrantError)
    with pytest.raises(wrong, match=r"(?i)32|dimension|shape"):
        asyncio.run(index.search("cats"))
    with pytest.raises(wrong, match=r"(?i)32|dimension|shape"):
        asyncio.run(index.add([document("猫.md", TEXTS["猫.md"])]))
    index.embedder = None
    assert asyncio.run(index.search("狗")).hits[0].names == ("猫.md",)
    index.embedder = Changing(32)
    asyncio.run(index.add([]))
    assert all(one.vectors == one.chunks for one in asyncio.run(index.documents()))
    index.close()


@pytest.mark.parametrize("embedder", [Changing(8, float("nan")), Changing(8, float("inf")), Changing(8, short=1)])
def test_a_model_that_gives_no_finite_vector_for_each_text_is_an_error_and_nothing_is_kept(
    tmp_path: Path, embedder: Changing
) -> None:
    index = FileIndex(tmp_path / "i", embedder)
    with pytest.raises(ProviderError, match="no vector of finite numbers"):
        asyncio.run(index.add([document("cats.md", TEXTS["cats.md"])]))
    assert contents(index)["vectors"] == []
    assert search(FileIndex(tmp_path / "i"), "cats") != []


def test_a_table_of_ten_thousand_columns_is_read_cut_and_found(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    cells = ["q" + "".join(chr(97 + int(digit)) for digit in str(n)) for n in range(10_000)]
    path.write_text(",".join(f"column{n}" for n in range(10_000)) + "\n" + ",".join(cells))
    index = FileIndex(tmp_path / "i")
    (added,) = asyncio.run(index.add([read_file(path)]))
    assert added.chunks > 100
    for n in (0, 4_999, 9_999):
        (hit,) = asyncio.run(index.search(cells[n])).hits
        assert cells[n] in hit.text


def test_a_file_that_changes_while_it_is_read_is_what_was_read_of_it(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("line 0\n")
    stop = threading.Event()

    def write() -> None:
        with path.open("a") as file:
            for n in range(2_000):
                file.write(f"line {n}\n" * 20)
                file.flush()
                if stop.wait(0.001):
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        read = [read_file(path) for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    whole = path.read_bytes()
    for one in read:
        assert one.sha256 == hashlib.sha256(whole[: one.size]).hexdigest()
        assert one.parsed.text.strip() == whole[: one.size].decode().strip()


def test_a_qdrant_that_died_between_two_requests_shows_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("qdrant_client")
    before = document("one.txt", "Among many other animals on this farm there are a few cats as well.")
    whole = QdrantIndex(":memory:#whole")
    asyncio.run(whole.add([before, document("cats.md", TEXTS["cats.md"])]))
    expected = asyncio.run(whole.documents()), asyncio.run(whole.search("cats"))
    for step in range(1, 9):
        index = QdrantIndex(":memory:#half")
        asyncio.run(index.add([before]))
        _fail_at(index, step, monkeypatch)
        try:
            asyncio.run(index.add([document("cats.md", TEXTS["cats.md"])]))
        except QdrantError:
            hits = asyncio.run(index.search("cats", 1)).hits  # what is not there takes nobody's place
            assert [hit.names for hit in hits] == [("one.txt",)]
            assert [one.name for one in asyncio.run(index.documents())] == ["one.txt"]
        monkeypatch.undo()
        asyncio.run(index.add([document("cats.md", TEXTS["cats.md"])]))
        assert (asyncio.run(index.documents()), asyncio.run(index.search("cats"))) == expected
        index.close()
    whole.close()


def _fail_at(index: QdrantIndex, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The so-manieth writing request fails, and all after it."""
    left = [step]
    for name in ("upsert", "set_payload", "delete"):
        real = getattr(index._client, name)

        def request(*args: object, real: object = real, **more: object) -> object:
            left[0] -= 1
            if left[0] <= 0:
                raise RuntimeError("gone")
            return real(*args, **more)  # type: ignore[operator]

        monkeypatch.setattr(index._client, name, request)
