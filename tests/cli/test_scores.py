"""`--metric`: answers beside the references of their rows."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from infer_command import rows_of, run
from suffice.cli.infer.scores import METRICS, is_same
from suffice.errors import UsageError
from suffice.testing.fake_openai import FakeOpenAI


@pytest.mark.parametrize("other", ["Paris", " paris.\n", "ＰＡＲＩＳ", "Paris。"])
def test_the_same_text_is_the_same(other: str) -> None:
    assert is_same("Paris", other)
    assert not is_same("Paris, France", other)


def test_rouge_counts_words_and_chinese_characters() -> None:
    score = METRICS["rouge"]()
    assert score("the cat sat", "The cat sat.") == {"rouge_1": 1, "rouge_2": 1, "rouge_l": 1}
    assert score("dog", "cat") == {"rouge_1": 0, "rouge_2": 0, "rouge_l": 0}
    assert score("今天天气好", "今天天气差") == {"rouge_1": 0.8, "rouge_2": 0.75, "rouge_l": 0.8}
    assert score("用GPT4写", "用 GPT4 写") == {"rouge_1": 1, "rouge_2": 1, "rouge_l": 1}
    assert score("", "x") == score("x", "") == score("", "") == {"rouge_1": 0, "rouge_2": 0, "rouge_l": 0}
    assert score("a a b", "a c b a") == {"rouge_1": 0.8571, "rouge_2": 0, "rouge_l": 0.5714}


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("rapidfuzz"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UsageError, match=r"--metric rouge needs .* pip install 'suffice\[metrics\]'"):
        METRICS["rouge"]()


def test_scores_stand_in_each_row_and_in_the_summary(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    pairs = [("a b", "A b."), ("c d", "e"), ("f", None)]
    source.write_text("".join(json.dumps({"query": q, "response": r}) + "\n" for q, r in pairs) + '{"query": ""}\n')
    call = ("--upstream", server.url, "--dataset", str(source), "--output", str(target))
    assert run(*call, "--metric", "acc") == 1
    rows = rows_of(target)
    assert [row.get("scores") for row in rows] == [{"acc": 1.0}, {"acc": 0.0}, None, None]
    assert rows[0]["reference"] == "A b."
    assert "acc 50.0 %: mean of 2 answers; 1 others have no score" in capsys.readouterr().err
    assert run(*call, "--metric", "rouge", "--output-format", "openai", "--overwrite") == 1
    assert rows_of(target)[0]["suffice"]["scores"] == {"rouge_1": 1.0, "rouge_2": 1.0, "rouge_l": 1.0}
    assert "rouge_1 50.0 %, rouge_2 50.0 %, rouge_l 50.0 %: mean of 2 answers" in capsys.readouterr().err
