"""API keys: how they are made, stored and recognised."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

from suffice.serve.auth.permissions import ANONYMOUS, Caller, KeyLimits

__all__ = ["KeyRing", "hash_key", "make_key"]

_PREFIX = "sk-suffice"


def make_key() -> tuple[str, str]:
    """A new key: its id, and its text with 256 random bits, which is shown once and not stored."""
    key_id = secrets.token_hex(6)
    return key_id, f"{_PREFIX}-{key_id}-{secrets.token_urlsafe(32)}"


def hash_key(text: str) -> str:
    """What is stored of a key. A plain SHA-256 suffices for 256 random bits: there is nothing to guess."""
    return hashlib.sha256(text.encode()).hexdigest()


class KeyRing:
    """All keys in memory, replaced as a whole when the store has changed. `rows` are as the store gives them."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._keys: dict[str, tuple[str, float | None, float | None, Caller]] = {}
        self.replace(rows)

    @property
    def configured(self) -> bool:
        """Whether there is any key, valid or not: a server whose last key was revoked does not open up."""
        return bool(self._keys)

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._keys = {row["id"]: (row["hash"], row["expires"], row["revoked"], _caller(row)) for row in rows}

    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The caller, by `Authorization: Bearer KEY` or `x-api-key: KEY`."""
        for name, value in headers:
            if name == b"authorization":
                scheme, _, text = value.decode("latin-1").partition(" ")
                return self._of(text.strip()) if scheme.lower() == "bearer" else Caller(refused="use a Bearer key")
            if name == b"x-api-key":
                return self._of(value.decode("latin-1").strip())
        return ANONYMOUS

    def _of(self, text: str) -> Caller:
        if not self.configured:
            return Caller(unchecked=True)  # OpenAI's clients must send something, so it may be anything
        known = self._keys.get(text.removeprefix(f"{_PREFIX}-").partition("-")[0])
        expected, expires, revoked, caller = known or ("0" * 64, None, None, ANONYMOUS)
        if not hmac.compare_digest(hash_key(text), expected):
            return Caller(refused="this key is not valid")
        if revoked is not None:
            return Caller(refused="this key was revoked")
        if expires is not None and expires <= time.time():
            return Caller(refused="this key has expired")
        return caller


def _caller(row: Mapping[str, Any]) -> Caller:
    limits = KeyLimits(row["requests_per_minute"], row["tokens_per_minute"], row["tokens_per_day"])
    tiers, models = frozenset(row["tiers"]), frozenset(row["models"])
    return Caller(
        key_id=row["id"],
        name=row["name"],
        tiers=tiers,
        models=models,
        limits=limits,
        on_runaway=row.get("on_runaway"),
    )
