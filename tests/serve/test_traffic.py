"""Traffic teaches the length model: one's own, the other replicas', and after a restart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from serving import LONG, Server, request_row, serving
from suffice.budget import LengthModel
from suffice.budget.length_model.sample import LengthSample
from suffice.cli.main import main
from suffice.serve.auth.api_keys import hash_key, make_key
from suffice.serve.learning.observations import Observation, records_of
from suffice.serve.learning.traffic import TrafficLearner
from suffice.serve.request_log.store import Store
from suffice.serve.request_log.tables import request_rows
from suffice.testing.scripted_engine import ScriptedEngine

POSTGRESQL = os.environ.get("SUFFICE_TEST_POSTGRESQL")
CHAT, SHORT = "/v1/chat/completions", "/infer/short"


def answers(server: Server, served: str = "scripted", **who: Any) -> int:
    """Answers that the server's length model has learned for everyone, or for one group such as a route."""
    model = server.service.session.budgeter.learned_length.model  # type: ignore[union-attr]
    return counted(model, who)


def counted(model: LengthModel, who: dict[str, Any] | None = None) -> int:
    who = who or {}
    groups = model._groups.known(model.key(LengthSample.of(who).query, predicted=False).groups)
    return groups[-1].answers if groups and len(groups) == len(who) + 1 else 0


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def row(number: int, **fields: Any) -> dict[str, Any]:
    times = dict.fromkeys(("time", "queue_seconds", "seconds"), float(number))
    said = {"request_id": str(number), "route": "/v1/chat/completions", "model": "scripted", "replica": "other"}
    return request_row(**{**times, **said, "answer_tokens": 40, "finish_detail": "end_token", **fields})


def add_numbered(store: Store, *rows: dict[str, Any]) -> None:
    """Rows with numbers (`row`) as PostgreSQL gives them: with gaps, and seen in another order."""
    with store._engine.begin() as connection:
        connection.execute(sa.insert(request_rows), list(rows))


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
        assert "earlier answers to such requests" in budget["reasons"][0]
    kept = LengthModel.load(tmp_path / "serve-length")
    assert counted(kept) == 63
    assert b"hello" not in (tmp_path / "serve-length" / "length_model.npz").read_bytes()


def test_several_answers_to_a_request_are_several_observations(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/serve.db"
    with serving(ScriptedEngine("hello"), database=database) as server:
        assert server.chat("hi", n=3, seed=1).status == 200
        assert server.post("/v1/completions", {"prompt": ["hi", "ho"]}).status == 200
        until(lambda: answers(server) == 5)
        with serving(ScriptedEngine(), database=database, length_state="none") as other:
            until(lambda: answers(other) == 5)
            assert answers(other, route=CHAT) == 3


def test_what_is_cut_is_longer_than_this_and_a_loop_teaches_nothing() -> None:
    with serving(ScriptedEngine(LONG[:600], context=None)) as server:
        for _ in range(30):
            assert server.post("/infer/long", {"prompt": "hi"}).json["finish_reason"] == "stop"
            assert server.post("/infer/short", {"prompt": "hi"}).json["finish_reason"] == "length"
        until(lambda: answers(server) == 60)
        model = server.service.session.budgeter.learned_length.model  # type: ignore[union-attr]
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


def test_a_row_of_a_later_release_is_passed_over(tmp_path: Path) -> None:
    store, model = Store(f"sqlite:///{tmp_path}/serve.db"), LengthModel()
    store.add_requests([row(1, lessons=[{"new": 1}]), row(2, lessons=[{"asked": {"groups": 3}, "tokens": 1}]), row(3)])
    TrafficLearner(model, store, "me", None).look()
    assert counted(model) == 1
    store.close()


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
    assert [record["finish"] for record in records_of(row(1, **fields))] == ([finish] if finish else [])


def test_each_answer_of_a_row_is_a_record() -> None:
    asked = LengthModel().key(LengthSample.of({"client": "a"}).query).to_json()
    lessons = [{"asked": asked, "tokens": 7, "cut": False}, {"asked": asked, "tokens": 9, "cut": True}]
    found = records_of(row(1, lessons=lessons, answer_tokens=16, finish="length"))
    assert [(each["output_tokens"], each["finish"]) for each in found] == [(7, "stop"), (9, "length")]


def test_a_fresh_replica_predicts_as_the_old_one_does(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/serve.db"
    question = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why is the sky blue?"}]

    def expected(server: Server, messages: list[dict[str, str]]) -> Any:
        return server.post("/v1/budget", {"messages": messages}).json["budget"]["quantiles"]

    with serving(ScriptedEngine(LONG[:77], context=None), database=database) as old:
        before = expected(old, question)
        for number in range(60):
            messages = [*question[: number % 2], {"role": "user", "content": f"Why is the sky {number}?"}]
            assert old.post("/v1/chat/completions", {"messages": messages}).status == 200
        until(lambda: answers(old) == 60)
        with serving(ScriptedEngine(), database=database, length_state="none") as fresh:
            until(lambda: answers(fresh) == 60)
            for messages in (question, question[1:]):
                assert expected(fresh, messages) == expected(old, messages) != before


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


def test_a_damaged_state_is_said_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "serve-length"
    folder.mkdir()
    (folder / "length_model.npz").write_bytes(b"no model")
    with serving(ScriptedEngine(), database=f"sqlite:///{tmp_path}/serve.db") as server:
        assert server.chat("hi").status == 200
        until(lambda: answers(server) == 1)
    [warning] = [each for each in caplog.records if each.levelname == "WARNING"]
    assert "length_model.npz is not a length model, or is damaged" in warning.getMessage()
    assert counted(LengthModel.load(folder)) == 1


def test_a_state_that_cannot_be_written_does_not_end_the_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with serving(ScriptedEngine(), length_state=f"{tmp_path}/file/below") as server:
        assert server.chat("hi").status == 200
    assert "the length model cannot be written" in caplog.text


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


def fit(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["fit", *arguments])
    return int(ended.value.code or 0)


def test_fit_learns_from_the_servers_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, output = f"sqlite:///{tmp_path}/serve.db", str(tmp_path / "length")
    store, random = Store(url), Random(1)
    rows = [
        row(number, key_id="anna", answer_tokens=20 + random.randrange(5))
        if number % 2
        else row(number, key_id="ben", answer_tokens=600 + random.randrange(200))
        for number in range(400)
    ]
    rows += [row(900, finish_detail="repetition"), row(901, finish="error", answer_tokens=0), row(903, lessons=[{}])]
    store.add_requests([*rows, row(902, finish="length")])
    store.close()
    assert fit(url, "--output", output) == 0
    said = capsys.readouterr()
    assert f"{url}: 404 rows: 401 with token counts, 1 of them cut by a limit, 1 left out (looped)" in said.err
    assert "1 left out (nothing generated), 1 left out (written by a later release)" in said.err
    assert "held out 80 answers" in said.out
    model = LengthModel.load(output)
    assert (model.predict({"client": "anna"}).quantile(0.9) < 30, model.card["rows"]) == (True, 401)
    assert model.predict({"client": "ben"}).quantile(0.5) > 550
    store = Store(url)
    TrafficLearner(model, store, "me", None).close()  # a server that starts with it
    assert counted(model) == 401
    store.add_requests([row(904)])
    TrafficLearner(model, store, "me", None).close()
    assert counted(model) == 402
    store.close()
    assert fit(url, "--output", output, "--rows", "60") == 1  # fewer answers, a worse ratio: not replaced
    assert "only the newest 60 requests are read" in (said := capsys.readouterr()).err
    assert "--force" in said.err


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/none.db"
    assert fit(url, "--output", str(tmp_path / "length")) == 2
    assert f"there is no database at {tmp_path}/none.db" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()
    assert fit("postgresql://me:secret@127.0.0.1:1/none", "--output", str(tmp_path / "length")) == 2
    assert "secret" not in capsys.readouterr().err


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_look_is_bounded_and_a_late_row_is_learned_once(tmp_path: Path) -> None:
    store, clock = Store(f"sqlite:///{tmp_path}/serve.db"), Clock()
    add_numbered(store, *(row(number, row=number) for number in range(1, 2501) if number != 2400))
    traffic, model = TrafficLearner((model := LengthModel()), store, "me", None, clock), model
    for learned, behind in ((1000, True), (2000, True), (2499, False)):
        traffic.look()
        assert (counted(model), traffic.behind) == (learned, behind)
    add_numbered(store, row(2400, row=2400), row(2501, row=2501, replica="me"))  # numbered before, there only now
    for _ in range(3):
        traffic.look()
        assert counted(model) == 2500
    add_numbered(store, row(2503, row=2503))
    traffic.look()
    clock.now = 100.0
    traffic.look()
    add_numbered(store, row(2502, row=2502))  # nobody waits a minute for it
    traffic.look()
    assert counted(model) == 2501
    store.close()


def test_gaps_that_somebody_made_cost_little(tmp_path: Path) -> None:
    store, model = Store(f"sqlite:///{tmp_path}/serve.db"), LengthModel()
    add_numbered(store, *(row(number, row=900 * number) for number in range(1, 11)))
    traffic = TrafficLearner(model, store, "me", None)
    traffic.look()
    assert counted(model) == 10
    assert traffic.missing == 1000
    add_numbered(store, row(2, row=8999), row(3, row=901))  # the newest are still waited for
    traffic.look()
    assert counted(model) == 11
    store.close()


@pytest.mark.parametrize("said", [*({"row": row_} for row_ in (float("inf"), float("nan"), "x", None, [])), {}, 7])
def test_a_position_that_is_nonsense_is_said_and_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, said: Any
) -> None:
    store = Store(f"sqlite:///{tmp_path}/serve.db")
    if said:
        said = {"database": store.identity(), "missing": [], **said} if isinstance(said, dict) else said
    kept = LengthModel()
    kept.card = {"traffic": said}
    kept.save(tmp_path / "state")
    assert TrafficLearner(LengthModel(), store, "me", tmp_path / "state").row == 0
    assert caplog.text.count("WARNING") == caplog.text.count("the length state learned up to ") == 1
    store.close()


def test_of_many_answers_of_one_kind_some_teach_and_of_a_rare_kind_all(tmp_path: Path) -> None:
    def observed(client: str, lengths: range) -> list[Observation]:
        key = LengthModel().key(LengthSample.of({"client": client}).query, predicted=False)
        return [Observation(key=key, tokens=tokens, cut=False) for tokens in lengths]

    store = Store(f"sqlite:///{tmp_path}/serve.db")
    now, model = [100.0], LengthModel()
    traffic = TrafficLearner(model, store, "me", None, lambda: now[0])
    traffic.learn(observed("busy", range(1, 501)))  # as many at once as are remembered
    assert (counted(model, {"client": "busy"}), traffic.left_out) == (500, 0)
    now[0] += 0.5
    traffic.learn([*observed("busy", range(1, 1001)), *observed("quiet", range(40))])
    assert (counted(model, {"client": "busy"}), counted(model, {"client": "quiet"})) == (550, 40)
    assert traffic.left_out == 950
    now[0] += 60
    traffic.learn(observed("busy", range(1, 401)))
    assert counted(model, {"client": "busy"}) == 950
    store.close()


def test_a_fresh_replica_reads_the_newest_rows_only(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/serve.db")
    store.add_requests([row(number) for number in range(21_000)])
    model = LengthModel()
    traffic = TrafficLearner(model, store, "me", tmp_path / "state")
    traffic.close()
    assert counted(model) == 20_000
    again = LengthModel()
    TrafficLearner(again, store, "me", tmp_path / "state").close()
    assert counted(again) == 20_000
    store.close()


@pytest.mark.slow
@pytest.mark.skipif(POSTGRESQL is None, reason="SUFFICE_TEST_POSTGRESQL is not set")
def test_replicas_on_postgresql_learn_from_each_other_once(tmp_path: Path) -> None:
    assert POSTGRESQL is not None
    model = f"scripted-{time.time_ns()}"  # the database may have rows of other tests

    class Named(ScriptedEngine):
        model_name = model

    def learned(server: Server) -> int:
        return answers(server, served=model, model=model)

    store, (key_id, text) = Store(POSTGRESQL), make_key()  # other tests made keys too, so that one is needed
    limits = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "tokens_per_day", "expires", "revoked"))
    permits = {"tiers": ["long"], "models": [], "created": time.time()}
    store.add_key({"id": key_id, "name": model, "hash": hash_key(text), **permits, **limits})
    store.close()

    def ask(server: Server) -> None:
        assert server.post("/infer/long", {"prompt": "hi"}, authorization=f"Bearer {text}").status == 200

    states = [str(tmp_path / name) for name in ("one", "two")]
    with serving(Named(), database=POSTGRESQL, length_state=states[0]) as one:
        with serving(Named(), database=POSTGRESQL, length_state=states[1]) as two:
            for number in range(40):
                ask(one if number % 3 else two)
            until(lambda: learned(one) == learned(two) == 40)
        ask(one)
        until(lambda: learned(one) == 41)
    for state in (*states, "none"):
        with serving(Named(), database=POSTGRESQL, length_state=state) as again:
            until(lambda again=again: learned(again) == 41)  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.skipif(POSTGRESQL is None, reason="SUFFICE_TEST_POSTGRESQL is not set")
def test_a_row_that_postgresql_shows_late_is_learned() -> None:
    assert POSTGRESQL is not None
    store, model = Store(POSTGRESQL), LengthModel()
    traffic = TrafficLearner(model, store, "me", None)
    while traffic.behind:
        traffic.look()
    before = counted(model)
    engine = sa.create_engine(POSTGRESQL.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as slow:
        slow.execute(sa.insert(request_rows), [row(1)])  # it has its number, and nobody sees it yet
        store.add_requests([row(2)])
        traffic.look()
        assert counted(model) == before + 1
    for _ in range(2):
        traffic.look()
        assert counted(model) == before + 2
    store.close()
    engine.dispose()
