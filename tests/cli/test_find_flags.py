"""`--help=WORD`: flags by their names, their groups, their explanations, and what other programs call them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from suffice.cli.main import main


def found(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


@pytest.mark.parametrize("word", ["temperature", "TEMPERATURE", "temp", "likeliest always"])
def test_flags_of_a_command_by_a_word(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = found(capsys, "infer", f"--help={word}")
    assert "--temperature" in page
    assert page.startswith("suffice infer:")
    assert "--dataset" not in page


def test_flags_of_every_command_by_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    page = found(capsys, "--help=max_length")
    for command in ("infer", "sft", "plan", "budget"):
        assert f"suffice {command}:" in page
    assert "suffice usage:" not in page
    assert "suffice keys create:" in found(capsys, "--help=per minute")
    assert "--tpm" in found(capsys, "keys", "--help=per minute")


def test_flags_by_the_name_that_they_have_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--max-new-tokens" in found(capsys, "infer", "--help=num_predict".replace("_", "-"))


def test_where_none_matches_near_words_or_other_commands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    said = found(capsys, "infer", "--help=temprature", status=1)
    assert said == "no flag of suffice infer has to do with 'temprature'; near words: temperature\n"
    assert "; sft, " in found(capsys, "infer", "--help=warmup", status=1).replace("; sft have", "; sft, have")
    assert "--help lists all flags" in found(capsys, "infer", "--help=xyzzy", status=1)


def test_a_value_that_looks_like_it_is_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert found(capsys, "infer", "--help", "--prompt", "x").startswith("Usage: suffice infer [OPTIONS]")


def test_finding_in_all_commands_loads_nothing_heavy() -> None:
    code = (
        "import sys, suffice.cli.main as m\n"
        "try: m.main(['--help=length'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'aiohttp', 'rich', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
