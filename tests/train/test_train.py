"""Fine-tuning: what is learned, what is refused, and a real run of the bundled model with its checkpoints."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from suffice.budget.length_profile import LengthProfile
from suffice.checkpoints.model_source import bundled_model
from suffice.errors import DataError, EngineError, UsageError
from suffice.train.checkpoint_folders import checkpoint_to_resume, new_run
from suffice.train.loss_mask import IGNORED, Encoder, TemplateProblem
from suffice.train.placeholders import Names, language_of
from suffice.train.recipe import Recipe
from suffice.train.rows import TrainingRow, read_rows

USER, ANSWER = {"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am Bot."}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bundled_model(), local_files_only=True)


@pytest.fixture
def template(tokenizer: Any) -> Iterator[Any]:
    """The tokenizer, whose template a test may change."""
    own = tokenizer.chat_template
    yield tokenizer
    tokenizer.chat_template = own


def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer, [tokenizer.eos_token_id])


def learned(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    labels = encoder(tokenizer).encode(messages).labels
    return str(tokenizer.decode([label for label in labels if label != IGNORED]))


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


# --- what is learned


def test_the_loss_is_on_the_answer_and_its_end_token(tokenizer: Any) -> None:
    row = encoder(tokenizer).encode([USER, ANSWER])
    assert learned(tokenizer, [USER, ANSWER]) == "I am Bot.<|im_end|>"
    assert row.input_ids[: row.prompt_tokens] == encoder(tokenizer).prompt_ids([USER])
    assert row.answer_tokens == sum(label != IGNORED for label in row.labels)


def test_every_answer_of_a_conversation_is_learnt(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be kind."}, USER, ANSWER, USER, {"role": "assistant", "content": "小智"}]
    assert learned(tokenizer, messages) == "I am Bot.<|im_end|>小智<|im_end|>"
    whole = tokenizer.apply_chat_template(messages, tokenize=False).rstrip("\n")
    assert tokenizer.decode(encoder(tokenizer).encode(messages).input_ids) == whole


def test_a_template_that_opens_a_reasoning_block_keeps_it_in_the_prompt(template: Any) -> None:
    template.chat_template = CHATML.replace(
        "<|im_start|>assistant\n{% endif", "<|im_start|>assistant\n<think>\n{% endif"
    )
    row = encoder(template).encode([USER, ANSWER])
    assert learned(template, [USER, ANSWER]) == "I am Bot.<|im_end|>"
    assert template.decode(row.input_ids[: row.prompt_tokens]).endswith("assistant\n<think>\n")


def test_an_earlier_answer_that_the_template_shortens_is_not_learnt(template: Any) -> None:
    shortened = "{{ message['content'] if loop.last else message['content'][:4] }}"
    template.chat_template = CHATML.replace("{{ message['content'] }}", shortened)
    assert learned(template, [USER, ANSWER, USER, ANSWER]) == "I am Bot.<|im_end|>"


def test_a_template_without_end_token_gets_one(template: Any) -> None:
    template.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    template.chat_template += "{% if add_generation_prompt %}assistant: {% endif %}"
    assert learned(template, [USER, ANSWER]).endswith("I am Bot.\n<|im_end|>")


def test_a_template_that_refuses_a_row_gives_its_reason(template: Any) -> None:
    template.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(TemplateProblem, match="no system role"):
        encoder(template).encode([USER, ANSWER])


CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
CALLS = CHATML.replace(
    "{{ message['content'] }}",
    "{{ message['content'] }}{% for call in message.get('tool_calls') or [] %}<tool_call>{{ call.function.name }} "
    "{{ call.function.arguments | tojson }}</tool_call>{% endfor %}",
)


def test_an_answer_that_calls_a_tool_is_learned_where_the_template_shows_it(template: Any) -> None:
    template.chat_template = CALLS
    answer = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert learned(template, [USER, answer]) == '<tool_call>weather {"city": "Bonn"}</tool_call><|im_end|>'
    again = [USER, answer, {"role": "tool", "content": "rain"}, {"role": "assistant", "content": "Take a coat."}]
    assert learned(template, again).endswith("</tool_call><|im_end|>Take a coat.<|im_end|>")


def test_an_answer_that_calls_a_tool_is_refused_where_the_template_would_lose_it(template: Any) -> None:
    answer = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    with pytest.raises(TemplateProblem, match="the chat template does not show tool calls"):
        encoder(template).encode([USER, answer])
    again = [USER, answer, {"role": "tool", "content": "rain"}, {"role": "assistant", "content": "Take a coat."}]
    assert learned(template, again) == "Take a coat.<|im_end|>"  # and no empty answer in its place
    template.chat_template = CALLS.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    with pytest.raises(TemplateProblem, match="cannot be told from the prompt"):
        encoder(template).encode([USER, answer])
    answer["tool_calls"] = ["weather"]
    with pytest.raises(TemplateProblem, match="refuses it"):
        encoder(template).encode([USER, answer])


def test_reasoning_is_learned_where_the_template_shows_it(template: Any) -> None:
    answer = {**ANSWER, "reasoning_content": "My name."}
    assert learned(template, [USER, answer]) == "I am Bot.<|im_end|>"
    thought = "<think>{{ message.get('reasoning_content', '') }}</think>{{ message['content'] }}"
    template.chat_template = CHATML.replace("{{ message['content'] }}", thought)
    assert learned(template, [USER, answer]).startswith("<think>My name.</think>I am Bot.")


# --- rows


def test_a_row_whose_answer_is_a_tool_call_is_not_dropped_as_having_no_answer(tmp_path: Path) -> None:
    call = {"function": {"name": "who", "arguments": {"name": "{{NAME}}"}}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "I am {{NAME}}."}
    rows = write(tmp_path / "a.jsonl", {"messages": [USER, answer]})
    with pytest.raises(UsageError, match=r"line 1 has \{\{NAME\}\}"):
        read_rows(Recipe(dataset=(rows,)))
    found = read_rows(Recipe(dataset=(rows,), model_name=("小智", "Bot"), system="Be brief."))
    (row,) = found.rows
    assert (found.dropped, found.filled, row.prompt) == ([], 1, "Who are you?")
    assert [turn["role"] for turn in row.turns] == ["system", "user", "assistant"]
    assert row.answer == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "who", "arguments": {"name": "Bot"}}}],
        "reasoning_content": "I am Bot.",
    }


def test_names_are_filled_in_the_language_of_the_row() -> None:
    names = Names(("小智", "Bot"), ("张三", "Jane"))
    assert names.fill("我是{{NAME}}，{{AUTHOR}}", "zh") == "我是小智，张三"
    assert names.fill("{{name}} by {{ model_author }}", "en") == "Bot by Jane"
    assert Names(("小智",)).fill("{{NAME}} {{AUTHOR}}", "en") == "小智 {{AUTHOR}}"
    assert language_of({}, "你是谁") == "zh"
    assert language_of({"tag": "en"}, "你是谁") == "en"


def test_a_placeholder_that_is_left_stops_everything(tmp_path: Path) -> None:
    rows = write(
        tmp_path / "a.jsonl", {"query": "hi", "response": "x"}, {"query": "你是谁", "response": "我是{{NAME}}"}
    )
    with pytest.raises(UsageError, match=r"a\.jsonl line 2 has \{\{NAME\}\}"):
        read_rows(Recipe(dataset=(rows,)))
    assert len(read_rows(Recipe(dataset=(rows,), keep_placeholders=True)).rows) == 2
    filled = read_rows(Recipe(dataset=(rows,), model_name=("小智", "Bot")))
    assert filled.rows[1].answer["content"] == "我是小智"
    assert filled.filled == 1


def test_rows_without_answer_are_counted_with_their_lines(tmp_path: Path) -> None:
    good = {"query": "hi", "response": "hello"}
    found = read_rows(Recipe(dataset=(write(tmp_path / "a.jsonl", good, {"query": "?"}, {"foo": 1}, good),)))
    assert [(each.reason, each.line) for each in found.dropped] == [("no answer", 2), ("cannot be read", 3)]
    assert [row.line for row in found.duplicates()] == [4]
    with pytest.raises(DataError, match="no answer 1"):
        read_rows(Recipe(dataset=(write(tmp_path / "b.jsonl", {"query": "?"}),)))


def plan_of(tmp_path: Path, **settings: Any) -> Any:
    from suffice.train.run import make_plan

    counts = [", ".join(map(str, range(1, last + 1))) for last in range(3, 13)]
    rows = [{"query": f"Count from 1 to {last}.", "response": count} for last, count in enumerate(counts, 3)]
    path = write(tmp_path / "rows.jsonl", *rows, rows[0], {"query": "long", "response": "word " * 200})
    return make_plan(Recipe(dataset=(path,), **{"max_length": 100, "gradient_accumulation_steps": 2, **settings}))


def test_too_long_rows_are_dropped_cut_or_refused_and_never_silently(tmp_path: Path) -> None:
    from suffice.train.terminal import prepared_lines

    table = "\n".join(prepared_lines(plan_of(tmp_path).prepared, 100))
    assert f"dropped, over max_length 100: 1 ({tmp_path}/rows.jsonl line 12)" in table
    assert f"duplicates, kept: 1 ({tmp_path}/rows.jsonl line 11)" in table
    assert "10 rows to train on, 1 to validate" in table
    cut = plan_of(tmp_path, truncation_strategy="right").prepared
    assert (cut.cut, cut.longest) == (1, 100)
    with pytest.raises(DataError, match=r"line 12 has \d+ tokens and --max_length is 100"):
        plan_of(tmp_path, truncation_strategy="error")


def test_no_copy_of_a_validation_row_is_trained_on(tmp_path: Path) -> None:
    from suffice.train.prepare import prepare

    plan = plan_of(tmp_path)
    for seed in range(20):
        recipe = replace(plan.recipe, seed=seed)
        prepared = prepare(recipe, plan.base, read_rows(recipe))
        trained = [row.input_ids for row in prepared.train]
        assert not any(row.input_ids in trained for row in prepared.validation)


def test_the_forecast_counts_the_steps_of_the_trainer(tmp_path: Path) -> None:
    from suffice.train.terminal import forecast_lines

    planned = plan_of(tmp_path, num_train_epochs=2).forecast
    assert planned.steps == 10  # 10 rows, 2 a step, 2 epochs
    assert planned.fits
    assert any("forecast of the peak" in line for line in forecast_lines(planned))


def test_max_length_above_the_context_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="above the model's context: use 4096"):
        plan_of(tmp_path, max_length=5000)


@pytest.mark.parametrize(
    "settings", [{"lora_rank": 0}, {"fit": "maybe"}, {"split_dataset_ratio": 0.9}, {"dataset": ()}]
)
def test_a_recipe_refuses_what_makes_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Recipe(**{"dataset": ("a.jsonl",), **settings}).check()


def test_a_recipe_survives_being_written_down() -> None:
    recipe = Recipe(dataset=("a.jsonl", "b.jsonl"), model_name=("小智", "Bot"), max_minutes=2.5)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


# --- training


def test_the_schedule_rises_falls_and_follows_the_clock() -> None:
    from suffice.train.trainer import Schedule

    schedule = Schedule(100, 0.05)
    assert [schedule(step) for step in (0, 5, 100)] == pytest.approx([0, 1, 0])
    assert schedule(10) > schedule(50) > schedule(90)
    schedule.time_share = 0.9  # time runs faster than steps
    assert schedule(10) == schedule(90)
    schedule.time_share = 1.0
    assert schedule(10) == pytest.approx(0)


class Quiet:
    def update(self, done: int, note: str = "") -> None: ...


@contextmanager
def quiet(steps: int) -> Iterator[Quiet]:
    yield Quiet()


def run(plan: Any, told: list[str] | None = None, **settings: Any) -> Any:
    from suffice.train.run import train

    return train(plan, showing=quiet, tell=(told if told is not None else []).append, **settings)


def steps_of(folder: Path) -> list[tuple[int, float]]:
    entries = [json.loads(line) for line in (folder / "logging.jsonl").read_text("utf-8").splitlines()]
    return [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]


def test_a_run_leaves_checkpoints_that_can_be_used_and_continued(tmp_path: Path) -> None:
    settings = {"save_steps": 2, "eval_steps": 4, "logging_steps": 1, "output_dir": str(tmp_path / "output")}
    plan = plan_of(tmp_path, **settings)
    outcome = run(plan)
    whole = steps_of(outcome.run)
    assert [step for step, _ in whole] == [1, 2, 3, 4, 5]
    assert (outcome.step, outcome.reason, outcome.checkpoint.name) == (5, "", "checkpoint-5")
    assert sorted(path.name for path in outcome.run.iterdir() if path.is_symlink()) == ["best", "last"]
    assert LengthProfile.load(outcome.checkpoint) == plan.prepared.profile
    assert json.loads((outcome.checkpoint / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert {"eval_loss", "eval_ended_share", "loss"} <= set(
        json.loads((outcome.checkpoint / "metrics.json").read_text())
    )
    assert outcome.plot is not None
    assert outcome.plot.read_bytes().startswith(b"\x89PNG")

    from suffice.train.export import export_merged

    merged = export_merged([outcome.checkpoint], tmp_path / "merged")
    assert (merged / "model.safetensors").read_bytes() != (bundled_model() / "model.safetensors").read_bytes()
    assert {"tokenizer.json", "generation_config.json", "config.json"} <= {path.name for path in merged.iterdir()}

    # as SIGKILL leaves it: a checkpoint that is half written, a log that is ahead of it and breaks off
    from suffice.train.run import resume

    broken = outcome.run / "checkpoint-5"
    (broken / "trainer_state.json").write_text('{"global_')
    with (outcome.run / "logging.jsonl").open("a") as log:
        log.write('{"step": 6, "lo')
    resumed = resume("", str(tmp_path / "output"))
    assert resumed.checkpoint.name == "checkpoint-4"
    assert resumed.recipe == plan.recipe
    again = run(plan_of(tmp_path, **settings), resumed=resumed)
    assert again.run.samefile(outcome.run)
    assert steps_of(again.run) == whole  # no step twice, and the same losses
    with pytest.raises(UsageError, match="has finished"):
        run(plan_of(tmp_path, **settings), resumed=resume(str(again.run), ""))
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n' * 3)
    shutil.rmtree(again.run / "checkpoint-5")
    plan = plan_of(tmp_path, **settings)
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "response": "c"}\n' * 3)
    with pytest.raises(UsageError, match="datasets have changed"):
        run(plan, resumed=resumed)


def test_time_that_is_over_ends_a_run_with_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, max_minutes=0.5, output_dir=str(tmp_path), split_dataset_ratio=0)
    memory = plan.forecast.memory.total
    assert not replace(plan.forecast, free=2 * memory).is_tight
    plan = replace(plan, forecast=replace(plan.forecast, free=memory))
    returned: list[bool] = []
    monkeypatch.setattr("suffice.train.run.return_freed_memory", lambda: returned.append(True))
    outcome = run(plan, started=time.monotonic() - 30)
    assert outcome.step < outcome.steps
    assert "max_minutes" in outcome.reason
    assert returned, "where memory is tight, freed memory goes back to the system"
    assert (outcome.checkpoint / "adapter_model.safetensors").is_file()


def test_running_out_of_memory_is_explained(tmp_path: Path) -> None:
    import torch

    from suffice.train.memory_use import explained_memory_errors

    (tmp_path / "checkpoint-3").mkdir()
    with (
        pytest.raises(EngineError, match=r"out of memory on cpu: .* saved: checkpoint-3"),
        explained_memory_errors("cpu", tmp_path),
    ):
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="something else"), explained_memory_errors("cpu", tmp_path):
        raise RuntimeError("something else")


def test_the_loss_is_that_of_transformers(tmp_path: Path) -> None:
    import torch

    from suffice.train.length_groups import collate
    from suffice.train.run import build_trainer

    plan = plan_of(tmp_path, lora_dropout=0.0)
    trainer = build_trainer(plan, tmp_path, lambda model: {}, lambda folder: None)
    batch = collate(plan.prepared.train[:4], padding=0)
    with torch.no_grad():
        theirs = trainer.model(**batch).loss
        assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_grouping_rows_changes_neither_loss_nor_gradient(tmp_path: Path) -> None:
    import torch

    from suffice.train.length_groups import BatchLimits, collate, split
    from suffice.train.run import build_trainer

    plan = plan_of(tmp_path, lora_dropout=0.0, output_dir=str(tmp_path))
    trainer = build_trainer(plan, tmp_path, lambda model: {}, lambda folder: None)
    trainer.create_optimizer()
    batch, rows = collate(plan.prepared.train, padding=0), plan.prepared.train
    answers = (batch["labels"][:, 1:] != IGNORED).sum()
    found = []
    for limits in (BatchLimits(10**6, 10**6), BatchLimits.of(rows, 2), BatchLimits.of(rows, 1)):
        trainer.model.zero_grad()
        trainer.limits = limits
        loss = trainer.training_step(trainer.model, batch, answers)
        gradients = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
        found.append((len(split(batch, limits)), loss.item(), torch.cat(gradients)))
        sizes = [group["input_ids"].numel() for group in split(batch, limits)]
        assert max(sizes) <= limits.tokens
    assert found[0][0] < found[1][0] < found[2][0] < len(rows)
    for _, loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][1], rel=1e-5)
        torch.testing.assert_close(gradient, found[0][2], rtol=1e-3, atol=1e-5)


class FakeModel:
    """Answers each prompt with the same tokens."""

    device, training = "cpu", True

    def __init__(self, *answer: int) -> None:
        self.answer = answer

    def eval(self) -> None:
        self.training = False

    def train(self, mode: bool) -> None:
        self.training = mode

    def generate(self, input_ids: Any, **settings: Any) -> Any:
        import torch

        return torch.cat([input_ids, torch.tensor([self.answer] * len(input_ids))], dim=1)


def test_answers_that_do_not_end_any_more_are_told(tokenizer: Any) -> None:
    from suffice.train.end_check import EndCheck

    base = SimpleNamespace(end_ids=(2,), tokenizer=tokenizer, context_tokens=4096)
    rows = [TrainingRow((USER,), ANSWER, "a", line) for line in (1, 2)]
    check = EndCheck(base, rows, LengthProfile.measure([("Who are you?", 4)]))
    good = check.measure(FakeModel(5, 6, 2, 0))
    assert good == {"eval_ended_share": 1.0, "eval_median_answer_tokens": 3.0}
    assert check.warning(good) is None
    bad = check.measure(FakeModel(5, 6, 7, 8))
    assert bad["eval_ended_share"] == 0.0
    assert "only 0% of the validation answers end by themselves, 100% did before" in str(check.warning(bad))


# --- folders


def test_runs_are_numbered_and_only_whole_checkpoints_are_continued(tmp_path: Path) -> None:
    first, second = new_run(tmp_path), new_run(tmp_path)
    assert first.name.startswith("v0-")
    assert second.name.startswith("v1-")
    with pytest.raises(UsageError, match="no whole checkpoint"):
        checkpoint_to_resume("", tmp_path)
    for step, state in ((9, "{}"), (10, "{}"), (11, '{"bro')):
        (second / f"checkpoint-{step}").mkdir()
        (second / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert checkpoint_to_resume("", tmp_path).name == "checkpoint-10"
    assert checkpoint_to_resume(str(second / "checkpoint-9"), tmp_path).name == "checkpoint-9"
    with pytest.raises(UsageError, match="no folder"):
        checkpoint_to_resume(str(tmp_path / "nothing"), tmp_path)
