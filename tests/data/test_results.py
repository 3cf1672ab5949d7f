"""A result file that survives being killed, and the set of indices that it keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from suffice.data import (
    ResultWriter,
    dataset_fingerprint,
    read_results,
)
from suffice.data.indices import IndexSet
from suffice.errors import DataError


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_results_come_as_they_are_written_and_are_compacted_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    with ResultWriter(path) as writer:
        for index in (2, 0, 3):
            writer.write(index, {"text": f"答{index}"})
            assert [row["index"] for row in read_results(path)][-1] == index  # there before anything is closed
        writer.write(0, {"text": "newer"})
        writer.compact()
        writer.write(5, {"text": "after"})
        writer.write(4, {"text": "late"})
        writer.compact()
        writer.write(4, {"text": "答4"})
        writer.compact()
    assert [(row["index"], row["text"]) for row in read_results(path)] == [
        (0, "newer"),
        (2, "答2"),
        (3, "答3"),
        (4, "答4"),
        (5, "after"),
    ]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["out.jsonl", "out.jsonl.meta.json"]


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("my notes\n")
    with pytest.raises(DataError, match="--resume continues it, --overwrite starts anew"):
        ResultWriter(path)
    with pytest.raises(DataError, match="does not say which dataset"):
        ResultWriter(path, resume=True)
    assert path.read_text() == "my notes\n"
    ResultWriter(path, overwrite=True).close()
    assert path.read_text() == ""


def test_a_torn_last_line_is_removed_and_its_row_is_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultWriter(path) as writer:
        writer.write(0, {"text": "a"})
        writer.write(1, {"text": "b"})
        good = path.read_bytes()
        writer.write(2, {"text": "猫"})
    whole = path.read_bytes()
    for end in range(len(good) + 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        with ResultWriter(path, resume=True) as writer:
            assert set(writer.finished) == {0, 1}
            assert len(writer.notices) == 1
            assert path.read_bytes() == good
    path.write_bytes(whole[:-1])  # whole, but for the line end
    with ResultWriter(path, resume=True) as writer:
        assert set(writer.finished) == {0, 1, 2}
        writer.write(3, {})
    assert [row["index"] for row in read_results(path)] == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", [b'{"ind\n', b'{"index": -1}\n', b'{"index": 99999999999}\n', b"[]\n", b"\0\0\0\n"])
def test_damage_in_the_middle_is_left_to_a_person(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "out.jsonl"
    with ResultWriter(path) as writer:
        writer.write(0, {"text": "a"})
    path.write_bytes(path.read_bytes() + damage + b'{"index": 2}\n')
    before = path.read_bytes()
    with pytest.raises(DataError, match="line 2 is not an answer"):
        ResultWriter(path, resume=True)
    assert path.read_bytes() == before


def test_failed_rows_are_run_again_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultWriter(path) as writer:
        writer.write(0, {"text": "a", "error": None})
        writer.write(1, {"error": "server down"})
    with ResultWriter(path, resume=True, retry_failed=False) as writer:
        assert (set(writer.finished), set(writer.failed)) == ({0, 1}, {1})
    with ResultWriter(path, resume=True) as writer:
        assert (set(writer.finished), set(writer.failed)) == ({0}, {1})
        writer.write(1, {"text": "b"})
        assert (set(writer.finished), set(writer.failed)) == ({0, 1}, set())
        writer.compact()
    assert list(read_results(path)) == [{"index": 0, "text": "a", "error": None}, {"index": 1, "text": "b"}]


def test_resuming_checks_the_dataset_and_tells_of_settings(tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "in.jsonl", [{"query": "a"}])
    path = tmp_path / "out.jsonl"
    before = dataset_fingerprint(str(rows))
    with ResultWriter(path, dataset=before, settings={"temperature": 0}) as writer:
        writer.write(0, {})
    with ResultWriter(path, dataset=before, settings={"temperature": 0.7}, resume=True) as writer:
        assert len(writer.notices) == 1
        assert "temperature is 0.7 (was 0)" in writer.notices[0]
    write_jsonl(rows, [{"query": "b"}])
    for other in (dataset_fingerprint(str(rows)), dataset_fingerprint(f"{rows}#1")):
        assert other != before
        with pytest.raises(DataError, match="answers to another dataset"):
            ResultWriter(path, dataset=other, resume=True)
    assert dataset_fingerprint(f"{rows}#1", seed=1) != dataset_fingerprint(f"{rows}#1", seed=2)


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultWriter(path) as writer:
        writer.write(0, {"text": "a"})
        with pytest.raises(DataError, match=rf"written by another process \(pid {os.getpid()}\)"):
            ResultWriter(path, overwrite=True)
        writer.write(1, {"text": "b"})
    assert len(list(read_results(path))) == 2


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        ResultWriter(tmp_path)
    with pytest.raises(DataError, match="cannot be written"):
        ResultWriter("/proc/nowhere/out.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        ResultWriter("/dev/null", overwrite=True)
    with pytest.raises(DataError, match="choose one"):
        ResultWriter(tmp_path / "out.jsonl", resume=True, overwrite=True)


def test_a_full_disk_loses_no_answer(tmp_path: Path) -> None:
    """The limit on file size stands for the disk: the write stops half-way in a line."""
    script = """
        import resource, signal, sys
        from suffice.data import ResultWriter
        from suffice.errors import DataError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        writer = ResultWriter(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            for index in range(100):
                writer.write(index, {"text": "x" * 60})
        except DataError as error:
            print(error)
    """
    path = tmp_path / "out.jsonl"
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), path], capture_output=True, text=True, check=True, env=_env()
    )
    assert "cannot be written" in told.stdout
    assert "--resume" in told.stdout
    content = path.read_bytes()
    assert content.endswith(b"}\n")
    assert [row["index"] for row in read_results(path)] == list(range(len(content.splitlines())))
    assert len(content) > 900


def test_killed_at_any_moment_and_resumed_gives_every_row_once(tmp_path: Path) -> None:
    script = """
        import random, sys
        from suffice.data import ResultWriter
        order = list(range(3000))
        random.Random(sys.argv[2]).shuffle(order)
        with ResultWriter(sys.argv[1], dataset={"rows": 3000}, resume=True) as writer:
            for index in order:
                if index not in writer.finished:
                    writer.write(index, {"text": "字" * 200, "by": sys.argv[2]})
                    print(index, flush=True)
            writer.compact()
    """
    path = tmp_path / "out.jsonl"
    told: set[int] = set()
    for life in range(4):
        command = [sys.executable, "-c", textwrap.dedent(script), str(path), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_env()) as process:
            assert process.stdout is not None
            for count, line in enumerate(process.stdout):
                told.add(int(line))
                if life < 3 and count == 500 + 7 * life:
                    process.send_signal(signal.SIGKILL)
                    break
        if life < 3:
            assert process.returncode == -signal.SIGKILL
            assert told <= {row["index"] for row in read_results(path)}
    rows = list(read_results(path))
    assert [row["index"] for row in rows] == list(range(3000))
    assert len({row["by"] for row in rows}) == 4  # each life added to the work of those before


def test_anything_a_row_may_hold_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultWriter(path) as writer:
        writer.write(0, {"score": [float("nan"), 1.5], "half": "\ud83d", "path": Path("a"), "中": "文"})
        with pytest.raises(ValueError, match="index"):
            writer.write(1, {"index": 9})
    text = path.read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text) == {"index": 0, "score": [None, 1.5], "half": "\ud83d", "path": "a", "中": "文"}


def test_index_set_is_a_set() -> None:
    indices, known = IndexSet(), set()
    for value in (5, 0, 64, 5, 1_000_003):
        indices.add(value)
        known.add(value)
    indices.discard(0)
    indices.discard(7)
    known.discard(0)
    assert indices == known
    assert list(indices) == sorted(known)
    assert len(indices) == 3
    assert -1 not in indices


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
