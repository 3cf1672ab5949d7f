"""A wrong call ends with status 2 and one line that says what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from suffice.cli.main import main


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line on standard error, without the word that begins it."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, error = capsys.readouterr()
    assert exit_.value.code == 2
    assert out == ""
    [line] = error.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("infer hello", "'hello' belongs to no flag; did you mean: suffice infer --prompt hello"),
        ("infer tell me more", "'tell' belongs to no flag; did you mean: suffice infer --prompt 'tell me more'"),
        ("infer --prompt hello world", "'world' belongs to no flag; did you mean: --prompt 'hello world'"),
        ("infer —prompt hello", "'—prompt' begins with a dash that is not '-': type --prompt"),
        ("plan Qwen2.5-7B", "'Qwen2.5-7B' belongs to no flag; did you mean: suffice plan --model Qwen2.5-7B"),
        ("usage today", "'today' belongs to no flag; suffice usage --help lists the flags"),
        ("budget write more", "PROMPT is one word: put a text with spaces in quotes (more is left over)"),
        ("inferr", "no command inferr; did you mean infer?"),
        ("chat", "no command chat; did you mean: suffice infer"),
        ("version", "no command version; did you mean: suffice --version"),
        ("写诗 --stream", "no command '写诗'; did you mean: suffice infer --prompt '写诗'"),
        ("keys creat bob", "no command creat; did you mean create?"),
        ("keys steal bob", "no command steal of suffice keys; there are: create, list, revoke, rotate"),
        ("infer --max_new_token 5", "no flag --max_new_token; did you mean --max-new-tokens?"),
        ("infer --tempurature=1", "no flag --tempurature; did you mean --temperature?"),
        ("infer -prompt x", "no flag -prompt; did you mean --prompt?"),
        ("infer --quiet", "no flag --quiet; suffice infer --help lists the flags, and --help=WORD finds one"),
        ("infer --model_name_or_path x", "no flag --model_name_or_path; --model is its name here"),
        ("infer --max-tokens 5", "no flag --max-tokens; --max-new-tokens is its name here"),
        ("sft --cutoff_len 5", "no flag --cutoff_len; --max-length is its name here"),
        ("sft --template x", "no flag --template: leave it out, because the model's own chat template is used"),
        ("infer --lora-rank 8", "no flag --lora-rank of suffice infer; suffice sft, plan and profile have it"),
        ("--prompt x", "no flag --prompt of suffice; suffice infer has it"),
        ("infer --hub modelscop", "--hub: 'modelscop' is not one of hf, modelscope; did you mean modelscope?"),
        ("usage --by dya", "--by: 'dya' is not one of key, tier, model, day; did you mean day?"),
        (
            "infer --engine vlm --prompt x",
            "no engine 'vlm'; there are: auto, transformers, vllm, sglang, openai; did you mean vllm?",
        ),
        (
            "budget --tier standrd x",
            "unknown tier 'standrd'; there are: short, standard, long, unlimited; did you mean standard?",
        ),
        ("infer --temperature hot", "--temperature: 'hot' is not a number: it must be 0 or more"),
        ("infer --top-p 1.5", "--top-p: 1.5 is not allowed: it must be above 0, at most 1"),
        ("infer --top-k 1.5", "--top-k: '1.5' is not a whole number: it must be 0 or more"),
        ("infer --temperature nan", "--temperature: nan is not allowed: it must be 0 or more"),
        ("infer --prompt", "--prompt needs a value"),
        ("keys create", "NAME is missing; suffice keys create --help says more"),
        ("plan", "--model is missing; suffice plan --help says more"),
    ],
)
def test_one_line_says_what_was_meant(call: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, *call.split()) == line


def test_a_file_is_a_dataset_and_a_folder_is_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, file in (("model", "config.json"), ("adapter", "adapter_config.json")):
        Path(folder).mkdir()
        (Path(folder) / file).write_text("{}")
    Path("my rows.jsonl").write_text("{}")
    assert said(capsys, "infer", "my rows.jsonl").endswith("suffice infer --dataset 'my rows.jsonl'")
    assert said(capsys, "infer", "model").endswith("suffice infer --model model")
    assert said(capsys, "infer", "adapter").endswith("suffice infer --adapters adapter")
