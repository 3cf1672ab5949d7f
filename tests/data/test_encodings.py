"""Text that is not UTF-8: read where it says what it is, else named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from suffice.data import UnusableRow, read_dataset
from suffice.data.encodings import decode_text, looks_like
from suffice.errors import DataError

CHINESE = "请用一句话解释什么是雨,以及它从哪里来。谢谢你的回答!"
TAIWAN = "請用一句話解釋什麼是雨,以及它從哪裡來。謝謝你的回答!"
JAPANESE = "雨とは何かを一文で説明してください。ありがとうございます。"
KOREAN = "비가 무엇인지 한 문장으로 설명해 주세요. 감사합니다."
FRENCH = "Expliquez en une phrase ce qu'est la forêt; l'été a été très sec, voilà."


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        (CHINESE, "gbk", "GBK"),
        ("你好", "gbk", "GBK"),
        ("今天天气怎么样？", "gb18030", "GBK"),
        (f"Translate: {CHINESE}", "gbk", "GBK"),
        (TAIWAN, "big5", "Big5"),
        (JAPANESE, "shift_jis", "Shift_JIS"),
        (KOREAN, "euc-kr", "EUC-KR"),
        (FRENCH, "cp1252", "Windows-1252 (Western European)"),
        ("café", "latin-1", "Windows-1252 (Western European)"),
    ],
)
def test_the_usual_encodings_are_told_apart(text: str, encoding: str, name: str) -> None:
    found = looks_like(text.encode(encoding))
    assert found is not None
    assert found[0] == name
    assert text.encode(encoding).decode(found[1]) == text, "what is advised gives the text"


def test_noise_is_no_encoding() -> None:
    assert looks_like(b"\xff\xfe\xfd\x80\x80\x81") is None
    assert looks_like(b"abc") is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_that_says_what_it_is_is_read(encoding: str) -> None:
    assert decode_text(f"{CHINESE}\r\n😀".encode(encoding), "x") == f"{CHINESE}\n😀"


def test_zeros_beside_ascii_tell_utf16_without_a_mark() -> None:
    assert decode_text("Hello, 世界".encode("utf-16-le"), "x") == "Hello, 世界"
    assert decode_text("Hello, 世界".encode("utf-16-be"), "x") == "Hello, 世界"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CHINESE.encode("gbk"), "looks like GBK: convert it with `iconv -f GB18030 -t UTF-8`"),
        (b"abc\xff\x80", "x is not UTF-8 (byte 0xff at position 4): save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "x is not text: it has zero bytes"),
        (b"\xff\xfea\x00b", "x is not UTF-8"),
    ],
)
def test_other_bytes_are_one_line_that_says_what_to_do(content: bytes, words: str) -> None:
    with pytest.raises(DataError) as told:
        decode_text(content, "x")
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_an_encoding_that_the_user_has_named_counts() -> None:
    assert decode_text(CHINESE.encode("gbk"), "x", encoding="gbk") == CHINESE
    assert decode_text(CHINESE.encode(), "x", encoding="gbk") == CHINESE, "UTF-8 is told by itself"
    with pytest.raises(DataError, match="looks like GBK"):
        decode_text(CHINESE.encode("gbk"), "x", encoding="ascii")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.txt", "rows.jsonl.gz"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_datasets_from_windows_are_read(tmp_path: Path, name: str, encoding: str) -> None:
    rows = [f"{CHINESE}\u2028{number} 😀" for number in range(3)]
    objects = [json.dumps({"query": row}, ensure_ascii=False) for row in rows]
    text = {
        "json": f"[{','.join(objects)}]",
        "csv": "\r\n".join(["query", *(f'"{row}"' for row in rows)]),
        "tsv": "\r\n".join(["query\tid", *(f"{row}\t1" for row in rows)]),
        "txt": "\r\n".join(rows),
    }.get(name.split(".")[1], "\r\n".join(objects))
    content = text.encode(encoding)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found = list(read_dataset(str(path)))
    assert [row.messages[0]["content"] for row in found if not isinstance(row, UnusableRow)] == rows


def test_a_file_in_another_encoding_is_refused_once_and_a_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes("".join(f'{{"query": "{CHINESE}"}}\n' for _ in range(5)).encode("gbk"))
    with pytest.raises(DataError, match=r"rows.jsonl is not UTF-8, it looks like GBK: convert it with"):
        read_dataset(str(path))
    path.write_bytes(b'{"query": "ascii"}\n' * 3 + '{"query": "é"}\n'.encode("latin-1") + '{"query": "é"}\n'.encode())
    rows = list(read_dataset(str(path)))
    assert [isinstance(row, UnusableRow) for row in rows] == [False, False, False, True, False]
    assert "not UTF-8 (byte 0xe9 at position 12)" in str(rows[3])
    path.write_bytes(b"\xff\xfe" + '{"query": "hi"}\n'.encode("utf-16-le") + b"\x00\xd8")
    with pytest.raises(DataError, match="not valid UTF-16"):
        list(read_dataset(str(path)))
