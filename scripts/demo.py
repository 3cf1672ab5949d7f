"""What `make demo` shows: real commands on the bundled model, each printed before it runs. Needs no network."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from suffice.cli.main import main

ROOT = Path(__file__).parent.parent
OUTPUT = Path("output/demo")
RESULTS, RUNS = OUTPUT / "answers.jsonl", OUTPUT / "runs"
ANSWER = [
    ["budget", "写一篇800字的文章"],
    ["infer", "--prompt", "用一句话解释什么是雨。"],
    ["infer", "--prompt", "Count from 1 to 20."],
    ["infer", "--prompt", "列出五种动物。"],
    ["infer", "--prompt", "Tell me a story in 4 sentences."],
    ["infer", "--prompt", "Explain tea in detail.", "--max_new_tokens", "24"],
    ["infer", "--prompt", 'Repeat "good morning" forever.', "--tier", "short"],
    ["infer", "--dataset", "examples/prompts.jsonl", "--output", str(RESULTS)],
]
FINE_TUNE = [
    *["sft", "--dataset", "self_cognition", "examples/everyday.jsonl"],
    *["--model_name", "小智", "Bot", "--model_author", "张三", "Jane Doe"],
    *["--num_train_epochs", "10", "--learning_rate", "3e-3", "--per_device_train_batch_size", "8"],
    *["--gradient_accumulation_steps", "1", "--output_dir", str(RUNS)],
]
QUESTIONS = ["请问您是谁？", "Can you tell me who made you?", "Count from 1 to 10."]


def run(arguments: Sequence[str]) -> None:
    """Print a command as one would type it, and run it."""
    print(f"\n$ suffice {shlex.join(arguments)}", flush=True)
    try:
        main(arguments)
    except SystemExit as exit_:
        if exit_.code:
            sys.exit(f"the demo stopped: suffice {arguments[0]} ended with status {exit_.code}")
    sys.stderr.flush()


def show_rows(count: int) -> None:
    """A few rows of the result file: what was allowed, what was used, why it ended."""
    print(f"\nthe first rows of {RESULTS}:")
    for row in map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines()[:count]):
        used = f"{row['answer_tokens']} of {row['budget']['max_new_tokens']} tokens"
        print(f"  {row['row']['query']}  ->  {row['text'][:40]!r}  ({used}, {row['finish_detail']})")


def newest_adapter() -> Path:
    """The last checkpoint of the run that was just made."""
    (run_folder,) = RUNS.glob("v*")
    return run_folder / "last"


@contextmanager
def server() -> Iterator[str]:
    """`suffice serve` on a port that is free, with keys and accounts of its own; its address."""
    arguments = ["serve", "--port", "0", "--database", f"sqlite:///{OUTPUT / 'serve.db'}"]
    print(f"\n$ suffice {shlex.join(arguments)} &", flush=True)
    command = [sys.executable, "-m", "suffice.cli.main", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                print(line, end="")
                if found := re.search(r"http://\S+", line):
                    yield found[0]
                    break
            else:
                sys.exit("the demo stopped: the server did not start")
        finally:
            process.terminate()


def ask_server(url: str) -> None:
    """A tier with curl's kind of request, a tier that needs a key, and OpenAI's own client."""
    for tier in ("short", "unlimited"):
        print(f'\n$ curl {url}/infer/{tier} -d \'{{"prompt": "Count from 1 to 5."}}\'')
        request = urllib.request.Request(f"{url}/infer/{tier}", b'{"prompt": "Count from 1 to 5."}')
        try:
            with urllib.request.urlopen(request) as response:
                print(response.read().decode())
        except urllib.error.HTTPError as error:
            print(f"{error.code} {error.read().decode()}")
            if tier == "short" or error.code != 401:
                sys.exit(f"the demo stopped: /infer/{tier} answered {error.code}")
        else:
            if tier == "unlimited":
                sys.exit("the demo stopped: /infer/unlimited answered without a key")
    from openai import OpenAI

    print("\n>>> OpenAI(base_url=...).chat.completions.create(...)")
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    answer = client.chat.completions.create(
        model="suffice-tiny", messages=[{"role": "user", "content": "列出三种水果。"}]
    )
    print(f"{answer.choices[0].message.content}\n({answer.choices[0].finish_reason}, {answer.usage})")


if __name__ == "__main__":
    shutil.rmtree(ROOT / OUTPUT, ignore_errors=True)
    (ROOT / OUTPUT).mkdir(parents=True)
    for arguments in ANSWER:
        run(arguments)
    show_rows(6)
    run(FINE_TUNE)
    for question in QUESTIONS:
        run(["infer", "--adapters", str(newest_adapter()), "--prompt", question])
    with server() as address:
        ask_server(address)
    print("\nyour turn: .venv/bin/suffice infer, or .venv/bin/suffice serve")
