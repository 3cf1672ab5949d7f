"""Servers that are started as a child: how they are started, what is said of it, and that none is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import suffice
from suffice.engines import open_engine
from suffice.engines.base import GenerationRequest
from suffice.engines.managed import keeper
from suffice.engines.managed.engine import ManagedEngine, SglangEngine, VllmEngine
from suffice.engines.pool import Pool
from suffice.errors import EngineError, UsageError
from suffice.prompt import Prompt
from suffice.session import Answer, Request, Session

FAKE = Path(__file__).with_name("fake_server.py")
SOURCE = Path(suffice.__file__).parents[1]
WAIT = 20.0  # seconds that a test waits for what must happen


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that dies is started again at once, and looked at often."""
    monkeypatch.setattr(keeper, "_FIRST_PAUSE", 0.1)
    monkeypatch.setattr(keeper, "_LOOK_EVERY", 0.05)


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An interpreter that has `vllm` and `sglang`, both of them the stand-in."""
    monkeypatch.delenv("FAKE_SERVER", raising=False)
    path = tmp_path / "venv" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        """-I) [ "$4" = sglang ] && echo '{"sglang": "0.5.6"}' || echo '{"vllm": "0.32.0+cpu"}';;\n"""
        f'*) PYTHONPATH={SOURCE}:$PYTHONPATH exec {sys.executable} {FAKE} "$@";;\n'
        "esac\n"
    )
    path.chmod(0o755)
    return str(path.parents[1])


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the stand-in does when it is started next."""
    return lambda **what: monkeypatch.setenv("FAKE_SERVER", json.dumps({key: str(each) for key, each in what.items()}))


def run(engine: ManagedEngine, *requests: Request) -> list[Answer]:
    async def main() -> list[Answer]:
        async with engine:
            session = Session(engine)
            return list(await asyncio.gather(*map(session.answer, requests)))

    return asyncio.run(main())


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except OSError:
        return False


def until(what: Callable[[], Any]) -> Any:
    """Wait until something holds; fails when it never does."""
    deadline = time.monotonic() + WAIT
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
    return found


def pids(file: Path) -> list[int]:
    """Of the server and of the process that it started."""
    return list(map(int, until(lambda: file.exists() and file.read_text()).split()))


def test_it_answers_says_how_far_it_is_and_leaves_nothing_behind(
    python: str, plan: Callable[..., None], tmp_path: Path
) -> None:
    plan(worker=tmp_path / "pids", arguments=tmp_path / "arguments")
    said: list[str] = []
    engine = open_engine(engine="vllm", engine_python=python, tell=said.append)
    assert isinstance(engine, VllmEngine)
    [answer] = run(engine, Request("one two three", max_new_tokens=2))
    assert (answer.text, answer.finish.reason, answer.finish.by) == ("one two", "length", "caller")
    assert [each for each in said if "weights" in each or "cache" in each or "graphs" in each] == [
        "weights loaded in 0.99 s",
        "KV cache of 524,288 tokens",
        "CUDA graphs captured in 3 s",
    ]
    assert engine.capabilities().kv_tokens == 524_288
    assert engine.capabilities().default_max_new_tokens == 1024  # the bundled model's, as transformers reads it
    assert not any(map(alive, pids(tmp_path / "pids")))
    arguments = json.loads((tmp_path / "arguments").read_text())
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert "--api-key" not in arguments  # others could read it there


def test_others_cannot_use_it(python: str, plan: Callable[..., None], tmp_path: Path) -> None:
    from aiohttp import ClientSession

    async def main() -> None:
        plan(arguments=tmp_path / "arguments")
        async with VllmEngine(engine_python=python):
            arguments = json.loads((tmp_path / "arguments").read_text())
            url = f"http://127.0.0.1:{arguments[arguments.index('--port') + 1]}/v1/models"
            async with ClientSession() as session, session.get(url) as response:
                assert response.status == 401

    asyncio.run(main())


def test_sglang_gets_its_key_in_a_file_and_its_own_flags(
    python: str, plan: Callable[..., None], tmp_path: Path
) -> None:
    plan(arguments=tmp_path / "arguments")
    engine = open_engine(engine="sglang", engine_python=python, kv_tokens=9000, context_tokens=2048, device="cpu")
    assert isinstance(engine, SglangEngine)
    [answer] = run(engine, Request("one two", max_new_tokens=9))
    assert answer.text == "one two"
    arguments = " ".join(json.loads((tmp_path / "arguments").read_text()))
    for each in ("--context-length 2048", "--max-total-tokens 9000", "--device cpu", "--enable-priority-scheduling"):
        assert each in arguments


@pytest.mark.parametrize("step", ["import", "weights", "cache", "graphs", "listen"])
def test_a_start_that_fails_says_why_with_the_end_of_the_log(
    python: str, plan: Callable[..., None], tmp_path: Path, step: str
) -> None:
    plan(die=step, worker=tmp_path / "pids")
    with pytest.raises(EngineError, match=f"^vLLM did not start .exit status 1.: ValueError: broken at {step}; "):
        run(VllmEngine(engine_python=python))
    assert not any(map(alive, pids(tmp_path / "pids")))


def test_a_port_that_somebody_else_took_is_another_try(python: str, plan: Callable[..., None], tmp_path: Path) -> None:
    plan(die="listen", say="OSError: [Errno 98] Address already in use", once=tmp_path / "once")
    [answer] = run(VllmEngine(engine_python=python), Request("one", max_new_tokens=9))
    assert answer.text == "one"


def test_a_context_that_does_not_fit_is_shortened_to_what_does(
    python: str, plan: Callable[..., None], tmp_path: Path
) -> None:
    refusal = "ValueError: larger than the available KV cache memory. the estimated maximum model length is 1234. Try"
    plan(die="cache", say=refusal, once=tmp_path / "once", arguments=tmp_path / "arguments")
    said: list[str] = []
    run(VllmEngine(engine_python=python, tell=said.append))
    assert "the context is shortened to the 1,234 tokens that fit" in said
    arguments = json.loads((tmp_path / "arguments").read_text())
    assert arguments[arguments.index("--max-model-len") + 1] == "1234"


def test_a_start_without_progress_ends(python: str, plan: Callable[..., None], tmp_path: Path) -> None:
    plan(die="weights", say="nothing", worker=tmp_path / "pids")
    with pytest.raises(
        EngineError, match=r"said nothing for 2 s, so it was stopped; the end of its log:\n(?s:.*)weights"
    ):
        run(VllmEngine(engine_python=python, start_timeout=2))
    assert not any(map(alive, pids(tmp_path / "pids")))


def test_a_start_that_is_cancelled_leaves_nothing_behind(
    python: str, plan: Callable[..., None], tmp_path: Path
) -> None:
    async def main() -> None:
        plan(die="weights", say="nothing", worker=tmp_path / "pids")
        task = asyncio.create_task(VllmEngine(engine_python=python).__aenter__())
        found = await asyncio.to_thread(pids, tmp_path / "pids")
        task.cancel()
        await asyncio.wait([task])
        assert not any(map(alive, found))

    asyncio.run(main())


@pytest.mark.parametrize("how", ["server", "supervisor"])
def test_a_server_that_dies_is_started_again_and_answers_what_waits(
    python: str, plan: Callable[..., None], tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        plan(worker=tmp_path / "pids", pace=0.05)
        engine = VllmEngine(engine_python=python)
        async with engine:
            session = Session(engine)
            stream = session.stream(Request("x", max_new_tokens=1000))
            while type(await anext(stream)).__name__ != "Text":
                pass
            server, worker = pids(tmp_path / "pids")
            (tmp_path / "pids").unlink()
            plan()  # the next one answers what it is asked
            os.kill(server if how == "server" else _parent(server), signal.SIGKILL)
            waiting = [asyncio.create_task(session.answer(Request(f"number {i}", max_new_tokens=9))) for i in range(50)]
            *_, last = [each async for each in stream]
            assert last.reason == "error"  # type: ignore[union-attr]
            assert last.what.startswith("vLLM ended (killed by SIGKILL) while it answered")  # type: ignore[union-attr]
            assert [each.text for each in await asyncio.gather(*waiting)] == [f"number {i}" for i in range(50)]
            await asyncio.to_thread(until, lambda: not any(map(alive, (server, worker))))

    asyncio.run(main())
    assert "it is started again in 0.1 s" in caplog.text


def test_a_server_whose_engine_is_dead_is_replaced(
    python: str, plan: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(keeper, "_NOTICE", 0.1)
        plan(worker=tmp_path / "pids")
        async with VllmEngine(engine_python=python) as engine:
            server, _ = pids(tmp_path / "pids")
            os.kill(server, signal.SIGUSR1)
            await asyncio.sleep(0.2)
            session = Session(engine)
            asked = [session.answer(Request(f"number {i}", max_new_tokens=9)) for i in range(10)]
            assert [each.text for each in await asyncio.gather(*asked)] == [f"number {i}" for i in range(10)]
            assert not alive(server)

    asyncio.run(main())


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_server_that_cannot_be_started_again_fails_what_waits(
    python: str, plan: Callable[..., None], tmp_path: Path
) -> None:
    async def main() -> None:
        plan(worker=tmp_path / "pids")
        engine = VllmEngine(engine_python=python)
        async with engine:
            plan(die="weights")
            os.kill(pids(tmp_path / "pids")[0], signal.SIGKILL)
            await asyncio.to_thread(until, lambda: engine._keeper.trouble)
            with pytest.raises(EngineError, match="vLLM could not be started again: try again later") as caught:
                await anext(engine.submit(GenerationRequest("1", Prompt(raw="x"), 5)))
            assert caught.value.status == 503
            health = await engine.health()
            assert (health.ok, health.recovering) == (False, True)
            plan()
            await engine._keeper.running()
            assert (await engine.health()).ok

    asyncio.run(main())


def test_a_pool_waits_for_a_server_that_comes_back(python: str, plan: Callable[..., None], tmp_path: Path) -> None:
    async def main() -> None:
        plan(worker=tmp_path / "pids", pace=0.05)
        pool = Pool.of([VllmEngine(engine_python=python)])
        async with pool:
            session = Session(pool)
            running = [Request("one two", max_new_tokens=1000, may_restart=lambda: True) for _ in range(5)]
            tasks = [asyncio.create_task(session.answer(each)) for each in running]
            await asyncio.sleep(0.5)
            plan()
            os.kill(pids(tmp_path / "pids")[0], signal.SIGKILL)
            answers = await asyncio.gather(*tasks)
            assert [each.text for each in answers] == ["one two"] * 5  # begun again, as nobody had seen anything yet
            assert pool.upstreams[0].failures == 0

    asyncio.run(main())


@pytest.mark.parametrize("how", [signal.SIGKILL, None])
def test_no_child_outlives_suffice(python: str, tmp_path: Path, how: signal.Signals | None) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = f"""
import sys, time
from suffice import load_engine
engine = load_engine(engine="vllm", engine_python={python!r})
print("ready", flush=True)
sys.stdin.read()
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "FAKE_SERVER": json.dumps({"worker": str(tmp_path / "pids")}),
        "TMPDIR": str(temporary),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    children = pids(tmp_path / "pids")
    assert all(map(alive, children))
    if how is None:
        process.stdin.close()  # it ends without having closed its engine
    else:
        process.send_signal(how)
    process.wait()
    until(lambda: not any(map(alive, children)))
    until(lambda: not [*temporary.glob("engine-*")])


def test_extra_flags_win_and_this_is_said(python: str, plan: Callable[..., None], tmp_path: Path) -> None:
    plan(arguments=tmp_path / "arguments")
    said: list[str] = []
    engine_args = "--max_model_len=300 --hf-overrides '{\"a\": 1}'"
    run(VllmEngine(engine_python=python, engine_args=engine_args, context_tokens=500, tell=said.append))
    arguments = json.loads((tmp_path / "arguments").read_text())
    assert arguments[-3:] == ["--max_model_len=300", "--hf-overrides", '{"a": 1}']
    assert "--max-model-len" not in arguments
    assert "--engine-args takes the place of --max-model-len 500" in said
    with pytest.raises(UsageError, match="--engine-args: --port is set by Suffice"):
        VllmEngine(engine_python=python, engine_args="--port 3")
    with pytest.raises(UsageError, match="cannot be split into flags: No closing quotation"):
        VllmEngine(engine_python=python, engine_args="--x 'y")


def test_what_is_not_installed_is_said_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^vLLM is not installed in this environment: python -m venv .*then --"):
        VllmEngine()
    with pytest.raises(UsageError, match=r"^SGLang is not installed where --engine-python points"):
        SglangEngine(engine_python=sys.executable)
    with pytest.raises(UsageError, match="there is no Python interpreter"):
        VllmEngine(engine_python=str(tmp_path))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "v0" / "last"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 8, "base_model_name_or_path": "suffice-tiny"}')
    (folder / "adapter_model.safetensors").touch()
    return folder


def test_the_http_server_serves_an_adapter_and_its_base_by_name(python: str, adapter: Path) -> None:
    pytest.importorskip("uvicorn")
    from serving import serving

    with serving(VllmEngine(engine_python=python, adapters=[adapter])) as server:
        assert [each["id"] for each in server.ask("GET", "/v1/models").json["data"]] == ["v0-last", "suffice-tiny"]
        for asked, answers in ((None, "v0-last"), ("v0-last", "v0-last"), ("suffice-tiny", "suffice-tiny")):
            said = server.chat("one two", **({"model": asked} if asked else {}))
            assert (said.status, said.json["model"]) == (200, answers)
            assert said.json["choices"][0]["message"]["content"] == "one two"
        refused = server.chat("one", model="gpt")
        assert (refused.status, refused.json["error"]["code"]) == (404, "model_not_found")
        assert "there is: v0-last, suffice-tiny" in refused.json["error"]["message"]


def test_a_check_of_the_server_says_what_would_be_started(
    python: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn")
    from suffice.cli.main import main

    config = tmp_path / "serve.toml"
    config.write_text(f'engine = "vllm"\nengine_python = "{python}"\nadapters = ["{adapter}"]\nkv_tokens = 9000\n')
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--check", "--port", "0", "--config", str(config), "--engine-args", "--max_num_seqs 64"])
    said = capsys.readouterr().out
    assert not ended.value.code, said
    assert 'engine_args = "--max_num_seqs 64"' in said
    assert (
        "# ok      engine: v0-last on vLLM 0.32.0+cpu with the model's own context, on the CPU, loaded at start" in said
    )
