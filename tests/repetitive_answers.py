"""Answers that repeat themselves because the job does, with their prompts, and one that is a loop."""

from __future__ import annotations

import json

__all__ = ["LOOP", "SENTENCE", "WANTED"]

_REFRAIN = """Roll on, river, roll on down,
Past the mill and past the town,
Roll on, river, to the sea,
Roll on home and carry me.

"""
_VERSES = (
    "I was born beside the weir where the willow branches lean",
    "My father rowed the ferry there when all the banks were green",
    "We sang until the lanterns failed and stars came out instead",
    "The water knows the words by now, it hums them in its bed",
    "And when my rowing days are done and someone takes my oar",
    "They'll hear it still, the same old tune, along the other shore",
)
_INSERT = "INSERT INTO users (id, name, email) VALUES ({n}, 'User {n}', 'user{n}@example.com');\n"
_ROW = "{n},2024-01-{day:02d},Store {store},{amount}.00,EUR\n"
_NAMES = ("Anna", "Ben", "Chiara", "David", "Elif")

WANTED = {
    "inserts": ("Write 100 insert statements for a table users.", "".join(_INSERT.format(n=n) for n in range(1, 101))),
    "multiplication": (
        "Write the multiplication table from 1 to 10.",
        "".join(f"{a} x {b} = {a * b}\n" for a in range(1, 11) for b in range(1, 11)),
    ),
    "even numbers": ("List all even numbers below 1,000.", ", ".join(map(str, range(2, 1000, 2)))),
    "counting": ("Count from 1 to 190.", ", ".join(map(str, range(1, 191)))),
    "csv": (
        "A CSV file with sales of a month, please.",
        "id,date,store,amount,currency\n"
        + "".join(_ROW.format(n=n, day=n % 28 + 1, store=n % 3, amount=100 + n % 7) for n in range(120)),
    ),
    "json": (
        "Give me 80 sensors as a JSON array.",
        json.dumps([{"id": n, "kind": "temperature", "unit": "C", "active": True} for n in range(80)], indent=1),
    ),
    "markdown": (
        "A table in Markdown: who has paid which invoice?",
        "| Invoice | Customer | Paid |\n|---|---|---|\n"
        + "".join(f"| {n} | {_NAMES[n % 5]} | yes |\n" for n in range(1000, 1090)),
    ),
    "song": (
        "Write a song with a refrain.",
        "".join(f"{a},\n{b}.\n\n{_REFRAIN}" for a, b in zip(_VERSES[::2], _VERSES[1::2], strict=True)) + _REFRAIN,
    ),
}
"""By kind: what is asked, and the answer, which has to arrive whole."""

SENTENCE = "The water runs down to the sea and comes back again as rain. "
LOOP = "Water goes round. " + SENTENCE * 200
