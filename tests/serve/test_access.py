"""Keys, tiers, quotas and accounts, over real HTTP and a real SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving import LONG, Server, charged, serving
from suffice.cli.main import main
from suffice.errors import RateLimitError, StorageAwayError, UsageError
from suffice.serve.auth.api_keys import KeyRing, hash_key, make_key
from suffice.serve.auth.permissions import Caller, KeyLimits
from suffice.serve.config import ServeSettings, check_exposure, load_serve_settings
from suffice.serve.limits.quotas import Quotas
from suffice.serve.request_log.store import Store, sqlite_file
from suffice.testing.scripted_engine import ScriptedEngine

Cli = Callable[..., str]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/serve.db"


@pytest.fixture
def cli(database: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command on the test's database and returns what it prints; a status other than 0 fails."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--database", database])
        output = capsys.readouterr()
        assert not exit_.value.code, output.err
        return output.out

    return run


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.strip()}"}


def infer(server: Server, tier: str, key: str = "", **fields: Any) -> tuple[int, str]:
    reply = server.post(f"/infer/{tier}", {"prompt": "go on", **fields}, **(bearer(key) if key else {}))
    return reply.status, reply.json.get("error", {}).get("code", "")


def test_a_key_permits_what_it_names_and_nothing_else(cli: Cli, database: str) -> None:
    plain = cli("keys", "create", "plain")
    both = cli("keys", "create", "both", "--tiers", "short", "unlimited")
    elsewhere = cli("keys", "create", "elsewhere", "--models", "another")
    with serving(ScriptedEngine(LONG, context=3000), database=database) as server:
        assert infer(server, "short") == (401, "missing_api_key")
        assert infer(server, "short", "sk-wrong") == (401, "invalid_api_key")
        assert infer(server, "short", plain[:-2] + "!") == (401, "invalid_api_key")
        assert infer(server, "short", plain)[0] == 200
        assert infer(server, "unlimited") == (401, "missing_api_key")
        assert infer(server, "unlimited", "sk-wrong") == (403, "invalid_api_key")
        assert infer(server, "unlimited", plain) == (403, "tier_not_permitted")
        assert infer(server, "unlimited", both)[0] == 200
        assert infer(server, "standard", both) == (403, "tier_not_permitted")
        assert infer(server, "short", elsewhere) == (403, "model_not_permitted")
        assert server.ask("GET", "/v1/models").status == 401
        assert server.ask("GET", "/v1/models", x_api_key=plain.strip()).status == 200
        assert server.ask("GET", "/health").status == 200
        # auto never goes above what the key permits
        said = server.post("/infer/auto", {"prompt": "go on", "max_new_tokens": 2500}, **bearer(plain)).json
        assert (said["suffice"]["tier"], said["usage"]["completion_tokens"]) == ("long", 1024)
        said = server.post("/infer/auto", {"prompt": "go on", "max_new_tokens": 2500}, **bearer(both)).json
        assert (said["suffice"]["tier"], said["usage"]["completion_tokens"]) == ("unlimited", 2048)


def test_revoking_rotating_and_expiring(cli: Cli, database: str) -> None:
    first = cli("keys", "create", "anna", "--tiers", "unlimited").strip()
    with serving(ScriptedEngine(), database=database) as server:
        assert infer(server, "unlimited", first)[0] == 200
        second = cli("keys", "rotate", "anna").strip()
        deadline = time.monotonic() + 10
        while infer(server, "unlimited", second)[0] != 200:  # the server reads its keys every two seconds
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert infer(server, "unlimited", first)[0] == 403
        cli("keys", "revoke", "anna")
        while infer(server, "unlimited", second)[0] == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert infer(server, "short") == (401, "missing_api_key")  # a server without valid keys does not open up
    assert "revoked" in cli("keys", "list")
    ring = KeyRing()
    key_id, text = make_key()
    row = dict.fromkeys(("revoked", "requests_per_minute", "tokens_per_minute", "tokens_per_day"))
    said = {"id": key_id, "name": "n", "hash": hash_key(text), "tiers": [], "models": [], "expires": 1.0}
    ring.replace([row | said])
    assert ring.identify([(b"authorization", f"Bearer {text}".encode())]).refused == "this key has expired"


def test_a_keys_text_is_shown_once_and_kept_nowhere(cli: Cli, tmp_path: Path) -> None:
    text = cli("keys", "create", "anna").strip()
    secret = text.split("-", 3)[3]
    assert len(secret) >= 20
    files = b"".join(path.read_bytes() for path in tmp_path.glob("serve.db*"))
    assert secret.encode() not in files
    assert hash_key(text).encode() in files
    assert secret not in cli("keys", "list")


def test_wrong_commands_say_what_to_do(
    cli: Cli, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("keys", "create", "anna")
    for arguments, words in (
        (("create", "anna"), "already"),
        (("create", "bob", "--tiers", "medium"), "unknown tier medium"),
        (("create", "bob", "--expires", "soon"), "not a time"),
        (("create", "bob", "--expires", ""), "not a time"),
        (("create", "bob", "--expires", "999999999999d"), "not a time"),  # after the year 9999
        (("create", "bob", "--expires", "2020-01-31"), "has passed already"),
        (("create", " "), "choose another"),
        (("create", "n" * 201), "at most 200"),
        (("create", "a\nb"), "choose another"),
        (("revoke", "carl"), "no key named"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["keys", *arguments, "--database", database])
        assert exit_.value.code == 2
        assert words in capsys.readouterr().err
    elsewhere = tmp_path / "none" / "serve.db"
    for arguments in (("keys", "list"), ("keys", "revoke", "anna"), ("keys", "rotate", "anna"), ("usage",)):
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--database", f"sqlite:///{elsewhere}"])
        assert exit_.value.code == 2
        assert f"there is no database {elsewhere}" in capsys.readouterr().err
        assert not elsewhere.parent.exists()


def test_a_table_that_is_missing_is_said_in_a_line(
    cli: Cli, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("keys", "create", "anna")
    with sqlite3.connect(tmp_path / "serve.db") as connection:
        connection.execute("DROP TABLE keys")
        connection.execute("DROP TABLE requests")
    for arguments in (("keys", "list"), ("keys", "revoke", "anna"), ("usage",)):
        with pytest.raises(SystemExit):
            main([*arguments, "--database", database])
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: the database refuses, until it is mended (no such table: ")


def test_a_database_may_be_named_as_sqlite_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(url: str, *arguments: str) -> int:
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--database", url])
        return int(exit_.value.code or 0)

    url = f"sqlite:///file:{tmp_path}/a%20b.db?uri=true"
    assert run(url, "keys", "list") == 2
    assert run(url, "keys", "create", "anna") == 0
    assert (tmp_path / "a b.db").exists()
    assert run(url, "keys", "list") == 0
    assert "anna" in capsys.readouterr().out
    assert ServeSettings(database=url).length_folder == tmp_path / "a%20b-length"
    assert sqlite_file("sqlite:///file:x?mode=memory&uri=true") is None


@pytest.mark.parametrize(
    ("settings", "has_keys", "word"),
    [
        ({}, False, "only this machine"),
        ({}, True, None),
        ({"host": "0.0.0.0"}, True, None),
        ({"host": "0.0.0.0", "no_auth": True}, False, "--no-auth"),
    ],
)
def test_who_can_reach_the_server_is_said(settings: dict[str, Any], has_keys: bool, word: str | None) -> None:
    notice = check_exposure(ServeSettings(**settings), has_keys=has_keys)
    assert notice is None if word is None else notice is not None and word in notice


def test_an_open_address_without_keys_is_refused() -> None:
    with pytest.raises(UsageError, match="--no-auth"):
        check_exposure(ServeSettings(host="0.0.0.0"), has_keys=False)


def test_with_no_auth_tiers_that_need_a_key_still_do(cli: Cli, database: str) -> None:
    key = cli("keys", "create", "anna", "--tiers", "unlimited")
    with serving(ScriptedEngine(), database=database, no_auth=True) as server:
        assert infer(server, "short")[0] == 200
        assert infer(server, "short", "none")[0] == 200  # OpenAI's clients must send something
        assert infer(server, "unlimited")[0] == 401
        assert infer(server, "unlimited", "none")[0] == 403
        assert infer(server, "unlimited", key)[0] == 200


def test_requests_and_tokens_per_minute(cli: Cli, database: str) -> None:
    few = cli("keys", "create", "few", "--rpm", "2")
    small = cli("keys", "create", "small", "--tpm", "500")
    with serving(ScriptedEngine("x" * 100, context=3000), database=database) as server:
        replies = [server.post("/infer/short", {"prompt": "hi"}, **bearer(few)) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["1", "0", "0"]
        assert 1 <= int(replies[2].headers["retry-after"]) <= 60
        assert replies[2].json["error"]["code"] == "rate_limit_exceeded"
        # each answer takes 102 tokens, and the reservation of 130 is given back down to that
        statuses, last = [], None
        for _ in range(5):
            last = server.post("/infer/short", {"prompt": "hi"}, **bearer(small))
            statuses.append(last.status)
        assert statuses == [200, 200, 200, 200, 429]
        assert last is not None
        assert last.headers["x-ratelimit-limit-tokens"] == "500"
        assert last.headers["x-ratelimit-remaining-tokens"] == str(500 - 4 * 102)
        reply = server.post("/infer/long", {"prompt": "y" * 600}, **bearer(small))
        assert (reply.status, reply.headers["x-should-retry"]) == (429, "false")


def test_a_refused_reservation_takes_nothing() -> None:
    async def run() -> None:
        quotas = Quotas()
        caller = Caller("k", "k", limits=KeyLimits(requests_per_minute=10, tokens_per_minute=100))
        with pytest.raises(RateLimitError) as refused:
            await charged(quotas, caller, 101)
        assert refused.value.headers["x-ratelimit-remaining-requests"] == "10"
        assert refused.value.headers["x-ratelimit-remaining-tokens"] == "100"
        held = await charged(quotas, caller, 100)
        assert held.headers["x-ratelimit-remaining-requests"] == "9"
        quotas.settle(held, 30)
        last = await charged(quotas, caller, 70)
        assert last.headers["x-ratelimit-remaining-tokens"] == "0"
        with pytest.raises(RateLimitError, match="100 tokens per minute"):
            await charged(quotas, caller, 1)

    asyncio.run(run())


def test_an_answer_that_outgrows_its_reservation_counts_while_it_runs(cli: Cli, database: str) -> None:
    key = cli("keys", "create", "k", "--tpm", "300")
    engine = ScriptedEngine(LONG, context=5000, slow=True)
    with serving(engine, database=database) as server:
        wish = {"prompt": "Answer in one word.", "max_tokens": 2048, "stream": True}
        connection, response = server.open("POST", "/v1/completions", wish, **bearer(key))
        while not server.service.admission.running:
            time.sleep(0.01)
        [slot] = server.service.admission.running
        assert slot.expected_tokens < 50
        assert infer(server, "short", key, max_new_tokens=1) == (200, "")
        while slot.generated < 300:
            time.sleep(0.01)
        assert infer(server, "short", key, max_new_tokens=1) == (429, "rate_limit_exceeded")
        connection.close()
        response.close()


def test_a_limit_of_requests_comes_before_all_work(cli: Cli, database: str) -> None:
    class Counting(ScriptedEngine):
        counted = 0

        async def count_tokens(self, *args: Any, **kwargs: Any) -> Any:
            self.counted += 1
            return await super().count_tokens(*args, **kwargs)

    key = cli("keys", "create", "k", "--rpm", "2")
    engine = Counting()
    with serving(engine, database=database) as server:
        assert infer(server, "short", key) == (200, "")
        assert infer(server, "short", key, prompt="go on " * 1000)[0] == 400  # too long, which had to be counted
        before = engine.counted
        assert infer(server, "short", key) == (429, "rate_limit_exceeded")
        assert engine.counted == before


class Elsewhere:
    """A storage that takes its time, and may be away."""

    there, away, count, window = True, False, 0, 60.0

    async def add(self, key: str, seconds: int, amount: int) -> tuple[int, float]:
        await asyncio.sleep(0.05)
        if self.away:
            raise StorageAwayError("away")
        self.count += amount
        return self.count, time.time() + self.window


def test_what_is_counted_for_a_client_that_goes_meanwhile_is_given_back() -> None:
    caller = Caller("k", "k", limits=KeyLimits(tokens_per_minute=100))

    async def leave(quotas: Quotas) -> None:
        going = asyncio.create_task(charged(quotas, caller, 60))
        await asyncio.sleep(0.01)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        await quotas.settled()

    async def run() -> None:
        quotas, shared = Quotas(), Elsewhere()
        quotas.shared = shared  # type: ignore[assignment]
        await leave(quotas)
        assert shared.count == 0
        held = await charged(quotas, caller, 60)
        assert shared.count == 60
        quotas.top_up(held, 90)
        quotas.settle(held, 70)
        await quotas.settled()
        assert shared.count == 70
        shared.window = -1.0  # over meanwhile: to give back now would be a present
        await leave(quotas)
        assert shared.count == 130

    asyncio.run(run())


def test_what_a_storage_that_is_away_did_not_take_is_not_given_back() -> None:
    async def run() -> None:
        quotas, shared = Quotas(), Elsewhere()
        quotas.shared = shared  # type: ignore[assignment]
        held = await charged(quotas, Caller("k", "k", limits=KeyLimits(tokens_per_minute=100)), 10)
        shared.away = True
        quotas.top_up(held, 60)
        await quotas.settled()
        shared.away = False
        quotas.settle(held, 50)
        await quotas.settled()
        assert shared.count == 50

    asyncio.run(run())


def test_limits_of_callers_who_are_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        now = 1e9
        monkeypatch.setattr(time, "time", lambda: now)
        quotas = Quotas()
        for number in range(3000):
            now += 1.0
            caller = Caller(f"k{number}", "k", limits=KeyLimits(requests_per_minute=1))
            await charged(quotas, caller, 1)
            with pytest.raises(RateLimitError):
                await charged(quotas, caller, 1)
        assert quotas.windows <= 1000

    asyncio.run(run())


def test_every_request_ends_as_one_row(cli: Cli, database: str, tmp_path: Path) -> None:
    key = cli("keys", "create", "anna")
    with serving(ScriptedEngine("x" * 200, context=3000), database=database) as server:
        server.post("/infer/short", {"prompt": "hi"}, **bearer(key))
        server.post("/infer/standard", {"prompt": "hi"}, **bearer(key))
        server.post("/infer/short", {"prompt": "secret words", "stream": True}, **bearer(key))
        server.post("/infer/short", {"prompt": "x" * 4000}, **bearer(key))
    with sqlite3.connect(tmp_path / "serve.db") as connection:  # the server has ended, and all is written
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY row")]
        applied = connection.execute("SELECT name FROM migrations").fetchall()
    names = {"create_keys_and_requests", "add_replica_and_lessons", "create_counts", "create_prompts"}
    assert {name for (name,) in applied} == names | {"add_prompt_ids_and_tool_calls", "add_on_runaway_to_keys"}
    assert [row["finish"] for row in rows] == ["length", "stop", "length", "error"]
    assert [row["finish_detail"] for row in rows] == ["tier", "end_token", "tier", ""]
    assert [(row["prompt_tokens"], row["answer_tokens"]) for row in rows] == [(2, 128), (2, 200), (12, 128), (0, 0)]
    assert [row["status"] for row in rows] == [200, 200, 200, 400]
    assert [row["stream"] for row in rows] == [0, 0, 1, 0]
    assert {row["key_name"] for row in rows} == {"anna"}
    assert rows[0]["first_token_seconds"] <= rows[0]["seconds"]
    assert rows[0]["p50"] <= rows[0]["p99"] <= rows[0]["max_new_tokens"] == 128
    assert b"secret" not in (tmp_path / "serve.db").read_bytes()

    table = cli("usage", "--by", "tier", "--csv").splitlines()
    assert table[0].startswith("tier,requests,errors,cancelled,prompt_tokens,answer_tokens,truncated_percent")
    named = {line.split(",")[0]: line.split(",")[1:7] for line in table[1:]}
    assert named["short"] == ["2", "0", "0", "14", "256", "100.0"]
    assert named["standard"] == ["1", "0", "0", "2", "200", "0.0"]
    assert "anna" in cli("usage")
    assert cli("usage", "--by", "day", "--since", "1d").count("\n") == 2
    assert cli("usage", "--since", "2099-01-01").count("\n") == 1


def test_a_store_opens_twice_and_a_wrong_url_is_explained(database: str) -> None:
    Store(database).close()
    Store(database).close()
    for url in ("nonsense", "nodb://x", "sqlite:////proc/nowhere/x.db"):
        with pytest.raises(UsageError, match="database"):
            Store(url)


def test_settings_come_from_file_environment_and_flags(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text('port = 9000\nupstreams = ["http://a"]\nqueue_timeout = 5\nno_auth = true\n')
    environment = {"SUFFICE_SERVE_PORT": "9001", "SUFFICE_SERVE_UPSTREAMS": "http://b, http://c"}
    settings = load_serve_settings(str(path), {"max_waiting": 3, "host": None, "adapters": ()}, environment)
    assert (settings.port, settings.upstreams, settings.queue_timeout) == (9001, ("http://b", "http://c"), 5.0)
    assert (settings.no_auth, settings.max_waiting, settings.host) == (True, 3, "127.0.0.1")
    for text, words in (("prot = 1", "unknown key prot"), ('port = "x"', "must be int"), ("port = 99999", "65535")):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            load_serve_settings(str(path), environment={})
    with pytest.raises(UsageError, match="SUFFICE_SERVE_PORT"):
        load_serve_settings(environment={"SUFFICE_SERVE_PORT": "many"})


def test_tiers_are_read_again_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_text("[tiers.short]\nmax_new_tokens = 10\n")
    with serving(ScriptedEngine("x" * 500), budget_file=str(path)) as server:
        assert server.post("/infer/short", {"prompt": "hi"}).json["usage"]["completion_tokens"] == 10
        path.write_text("[tiers.short]\nmax_new_tokens = 20\n[tiers.tiny]\nmax_new_tokens = 3\n")
        server.service.reload()
        assert server.post("/infer/short", {"prompt": "hi"}).json["usage"]["completion_tokens"] == 20
        assert server.post("/infer/tiny", {"prompt": "hi"}).json["usage"]["completion_tokens"] == 3
        path.write_text("[tiers.short]\nmax_new_tokens = 0\n")
        with pytest.raises(UsageError):
            server.service.reload()
        assert server.post("/infer/tiny", {"prompt": "hi"}).status == 200
