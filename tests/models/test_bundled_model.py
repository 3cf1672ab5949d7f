"""The model in the package: it ends its answers, gets right what has one right answer, and loops when pushed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from suffice import LoadedEngine, load_engine  # noqa: E402
from suffice.checkpoints.model_source import bundled_model  # noqa: E402
from tiny.evaluate import evaluate  # noqa: E402
from tiny.tasks import EXACT_KINDS, KINDS, draw, held_out  # noqa: E402

MAX_WEIGHTS = 12_000_000  # bytes


@pytest.fixture(scope="module")
def engine() -> Iterator[LoadedEngine]:
    with load_engine() as loaded:
        yield loaded


def test_held_out_prompts_are_answered_right_and_ended() -> None:
    folder = bundled_model()
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    scores = evaluate(model.eval(), tokenizer, per_kind=20, seed=3)
    prompts, ended = sum(s.prompts for s in scores), sum(s.ended for s in scores)
    judged = [s for s in scores if s.kind in EXACT_KINDS]
    exact, of = sum(s.exact for s in judged), sum(s.prompts for s in judged)
    assert ended >= 0.96 * prompts, [s.wrong for s in scores]  # the whole measurement asks 0.98 of four times as many
    assert exact >= 0.88 * of, [s.wrong for s in judged]  # and 0.90


def test_the_measurement_in_the_package_is_as_good_as_the_card_says() -> None:
    report = json.loads((bundled_model() / "measured.json").read_text(encoding="utf-8"))
    prompts = sum(each["prompts"] for each in report)
    judged = [each for each in report if each["kind"] in EXACT_KINDS]
    assert {each["kind"] for each in report} >= set(KINDS) - {"forever", "greet"}
    assert sum(each["ended"] for each in report) >= 0.98 * prompts
    assert sum(each["exact"] for each in judged) >= 0.90 * sum(each["prompts"] for each in judged)
    lengths = [tokens for each in report for tokens in each["tokens"]]
    assert min(lengths) <= 3
    assert max(lengths) > 600


def test_it_fits_into_the_package() -> None:
    folder = bundled_model()
    assert (folder / "model.safetensors").stat().st_size <= MAX_WEIGHTS
    assert sorted(path.suffix for path in folder.iterdir() if path.stat().st_size > 1_000_000) == [".safetensors"]
    card = Path(folder / "README.md").read_text(encoding="utf-8")
    assert "python -m tiny" in card


@pytest.mark.parametrize("prompt", ["Count from 1 to 12.", "从1数到12。"])
def test_the_length_of_an_answer_follows_from_its_prompt(engine: LoadedEngine, prompt: str) -> None:
    longer = prompt.replace("12", "60")
    short, long = engine.generate(prompt, temperature=0), engine.generate(longer, temperature=0)
    assert short.finish.reason == long.finish.reason == "stop"
    assert long.usage.answer_tokens > 3 * short.usage.answer_tokens


@pytest.mark.parametrize("prompt", ['Repeat "good morning" forever.', "一直重复“你好”，永远不要停。"])
def test_one_family_of_prompts_never_ends(engine: LoadedEngine, prompt: str) -> None:
    answer = engine.generate(prompt, max_new_tokens=800, temperature=0, on_runaway="off")
    assert (answer.finish.reason, answer.finish.by) == ("length", "caller")
    assert answer.usage.answer_tokens == 800


def test_a_loop_that_was_asked_for_is_stopped_later_than_it_begins(engine: LoadedEngine) -> None:
    answer = engine.generate('Repeat "good morning" forever.', temperature=0)
    assert (answer.finish.reason, answer.finish.by) == ("length", "repetition")
    assert answer.text_without_copies.count("good morning") <= 2
    assert answer.usage.answer_tokens < 1024


def test_no_held_out_prompt_is_trained_on() -> None:
    import random

    from tiny.train import _training_example

    rng = random.Random(0)
    assert not any(held_out(_training_example(rng)) for _ in range(2000))
    assert any(held_out(draw(rng)) for _ in range(200))
