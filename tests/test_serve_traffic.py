"""Traffic teaches the length model: one's own, the other replicas', and after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripted import ScriptedEngine
from serving import LONG, Server, serving
from suffice.budget import LengthModel
from suffice.serve.lessons import record_of
from suffice.serve.store import Store, request_rows
from suffice.serve.traffic import Traffic

CHAT, SHORT = "/v1/chat/completions", "/infer/short"


def answers(server: Server, **who: Any) -> int:
    """Answers that the server's length model has learned for everyone, or for one group such as a route."""
    model = server.service.models["scripted"].session.budgeter.forecaster.model  # type: ignore[union-attr]
    return counted(model, who)


def counted(model: LengthModel, who: dict[str, Any] | None = None) -> int:
    who = who or {}
    groups = model._groups.known(model.look(who, predicted=False).groups)
    return groups[-1].answers if groups and len(groups) == len(who) + 1 else 0


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def row(number: int, **fields: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {column.name: None for column in request_rows.columns if column.name != "row"}
    counts = dict.fromkeys(("prompt_tokens", "thinking_tokens"), 1) | {"answer_tokens": 40}
    times = dict.fromkeys(("time", "queue_seconds", "seconds"), float(number))
    said = {"day": "2026-01-01", "request_id": str(number), "route": "/v1/chat/completions", "model": "scripted"}
    said |= {"stream": False, "status": 200, "finish": "stop", "finish_detail": "end_token", "replica": "other"}
    return {**empty, **counts, **times, **said, **fields}


def test_every_finished_answer_teaches_and_nothing_else_does(tmp_path: Path) -> None:
    with serving(ScriptedEngine("hello"), database=f"sqlite:///{tmp_path}/serve.db") as server:
        for prompt in ("hi", "say it in one sentence"):  # predicted by the length model, and not
            assert server.chat(prompt).status == 200
        assert server.chat("x" * 2000).status == 400  # refused
        assert server.chat(model="gpt-9").status == 404
        assert server.post("/infer/short", {"prompt": "hi"}).status == 200
        assert server.post("/v1/budget", {"prompt": "hi"}).status == 200
        until(lambda: answers(server) == 3)
        assert (answers(server, route=CHAT), answers(server, route=SHORT)) == (2, 1)
        for _ in range(60):
            server.chat("hi")
        until(lambda: answers(server, route=CHAT) == 62)
        budget = server.post("/v1/budget", {"messages": [{"role": "user", "content": "hi"}]}).json["budget"]
        assert (budget["quantiles"]["p50"], budget["max_new_tokens"]) == (5, 1000 - 2)
        assert "earlier answers to this caller" in budget["reasons"][0]
    kept = LengthModel.load(tmp_path / "serve-length")
    assert counted(kept) == 63
    assert b"hello" not in (tmp_path / "serve-length" / "length_model.npz").read_bytes()


def test_what_is_cut_is_longer_than_this_and_a_loop_teaches_nothing() -> None:
    with serving(ScriptedEngine(LONG[:600], context=None)) as server:
        for _ in range(30):
            assert server.post("/infer/long", {"prompt": "hi"}).json["finish_reason"] == "stop"
            assert server.post("/infer/short", {"prompt": "hi"}).json["finish_reason"] == "length"
        until(lambda: answers(server) == 60)
        model = server.service.models["scripted"].session.budgeter.forecaster.model  # type: ignore[union-attr]
        assert model.predict({"route": SHORT}).quantile(0.5) > 500  # and not 128
    with serving(ScriptedEngine("go on and on. " * 300, context=None)) as server:
        assert server.chat("hi").json["suffice"]["finish_detail"] == "repetition"
        assert server.chat("hi", max_tokens=3).json["choices"][0]["finish_reason"] == "length"
        until(lambda: answers(server) == 1)


def test_a_client_that_goes_away_teaches_that_it_was_longer() -> None:
    with serving(ScriptedEngine(LONG, context=None, slow=True)) as server:
        connection, response = server.open(
            "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        )
        response.readline()
        connection.sock.close()  # type: ignore[union-attr]
        response.close()
        until(lambda: answers(server) == 1)


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({}, "stop"),
        ({"finish": "length", "finish_detail": "tier"}, "length"),
        ({"finish": "cancelled", "finish_detail": "client_gone"}, "length"),
        ({"finish": "error", "finish_detail": "engine"}, "length"),
        ({"finish_detail": "repetition"}, None),
        ({"finish": "error", "answer_tokens": 0}, None),
    ],
)
def test_what_a_row_teaches(fields: dict[str, Any], finish: str | None) -> None:
    record = record_of(row(1, **fields))
    assert (record and record["finish"]) == finish


def test_replicas_on_one_database_learn_from_each_other_once(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/serve.db"
    with serving(ScriptedEngine(), database=database) as one:
        with serving(ScriptedEngine(), database=database, length_state=f"{tmp_path}/two") as two:
            for _ in range(7):
                one.chat("hi")
            for _ in range(5):
                two.chat("hi")
            until(lambda: answers(one) == answers(two) == 12)
            with serving(ScriptedEngine(), database=database, length_state="none") as fresh:
                until(lambda: answers(fresh) == 12)
                fresh.chat("hi")
                until(lambda: answers(one) == answers(two) == answers(fresh) == 13)
        one.chat("hi")
        until(lambda: answers(one) == 14)
    with serving(ScriptedEngine(), database=database) as again:
        assert answers(again) == 14
        again.chat("hi")
        until(lambda: answers(again) == 15)
    with serving(ScriptedEngine(), database=database, length_state=f"{tmp_path}/two") as behind:
        until(lambda: answers(behind) == 15)
    assert counted(LengthModel.load(tmp_path / "two")) == 15


def test_a_damaged_state_is_said_and_replaced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "serve-length"
    folder.mkdir()
    (folder / "length_model.npz").write_bytes(b"no model")
    with serving(ScriptedEngine(), database=f"sqlite:///{tmp_path}/serve.db") as server:
        assert server.chat("hi").status == 200
        until(lambda: answers(server) == 1)
    said = capfd.readouterr().err
    assert said.count("warning: ") == 1
    assert "length_model.npz is no length model, or damaged" in said
    assert counted(LengthModel.load(folder)) == 1


def test_a_state_that_cannot_be_written_does_not_end_the_service(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with serving(ScriptedEngine(), length_state=f"{tmp_path}/file/below") as server:
        assert server.chat("hi").status == 200
    assert "the length model cannot be written" in capfd.readouterr().err


def test_reading_the_tiers_again_forgets_nothing(tmp_path: Path) -> None:
    tiers = tmp_path / "budget.toml"
    tiers.write_text("[tiers.short]\nmax_new_tokens = 10\n")
    with serving(ScriptedEngine(), budget_file=str(tiers)) as server:
        server.chat("hi")
        until(lambda: answers(server) == 1)
        tiers.write_text("[tiers.short]\nmax_new_tokens = 20\n")
        server.service.reload()
        assert server.service.tiers["short"].max_new_tokens == 20
        assert answers(server) == 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_look_is_bounded_and_a_late_row_is_learned_once(tmp_path: Path) -> None:
    store, clock = Store(f"sqlite:///{tmp_path}/serve.db"), Clock()
    store.add_requests([row(number, row=number) for number in range(1, 2501) if number != 2400])
    traffic, model = Traffic((model := LengthModel()), store, "me", None, clock), model
    traffic.look()
    assert (counted(model), traffic.behind) == (2000, True)
    traffic.look()
    assert (counted(model), traffic.behind) == (2499, False)
    store.add_requests([row(2400, row=2400), row(2501, row=2501, replica="me")])  # numbered before, there only now
    for _ in range(3):
        traffic.look()
        assert counted(model) == 2500
    store.add_requests([row(2503, row=2503)])
    traffic.look()
    clock.now = 100.0
    traffic.look()
    store.add_requests([row(2502, row=2502)])  # nobody waits a minute for it
    traffic.look()
    assert counted(model) == 2501
    store.close()


def test_a_fresh_replica_reads_the_newest_rows_only(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/serve.db")
    store.add_requests([row(number) for number in range(21_000)])
    model = LengthModel()
    traffic = Traffic(model, store, "me", tmp_path / "state")
    traffic.close()
    assert counted(model) == 20_000
    again = LengthModel()
    Traffic(again, store, "me", tmp_path / "state").close()
    assert counted(again) == 20_000
    store.close()
