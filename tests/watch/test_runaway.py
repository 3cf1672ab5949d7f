"""The runaway detector: loops to the letter are told, and what advances or repeats for a reason is spared."""

import random
import re
import sys

import pytest

from suffice.numerals import chinese_number
from suffice.watch import Runaway, RunawayDetector
from suffice.watch.numbered_list import NumberedList
from suffice.watch.repetition_score import WINDOW, VerbatimRun
from suffice.watch.repetition_wanted import prompt_text, turns_wanted
from suffice.watch.units import FILLER, LINE_END, WORD, TextUnits, read_unit

INTRO = "Here is what you asked for, written with some care and in plain words.\n\n"
SENTENCE = "The model goes on and on about the same small thing in the same few words. "
WORDS = [
    f"{a}{b}"
    for a in ["ba", "ke", "lo", "mi", "nu", "pra", "ste", "tor", "win", "zel"]
    for b in ["dan", "fir", "gol", "hem", "jas"]
]


class Tokens:
    """A toy tokenizer: words with the blank before them, single digits, rows of dashes, every other sign alone."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        parts = re.findall(r" ?[A-Za-z]+|\d|\n{1,2}|-{1,16}|.", text)
        for part in parts:
            if part not in self.ids:
                self.ids[part] = len(self.texts)
                self.texts.append(part)
        return [self.ids[part] for part in parts]

    def decode(self, token_id: int) -> str:
        return self.texts[token_id]


def by_tokens(text: str, prompt: object = None) -> Runaway | None:
    tokens = Tokens()
    ids = tokens.encode(text)
    detector = RunawayDetector(prompt, tokens.decode)
    return next((found for token in ids if (found := detector.push(token))), None)


def by_text(text: str, prompt: object = None, size: int = 7) -> Runaway | None:
    detector = RunawayDetector(prompt)
    pieces = (text[at : at + size] for at in range(0, len(text), size))
    return next((found for piece in pieces if (found := detector.push_text(piece))), None)


def novel(count: int, seed: int = 1) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(count))


PARAGRAPH = " ".join(f"{word} {SENTENCE}" for word in novel(6).split())
NAMES = ["London", "Paris", "Rome", "Oslo", "Bern"]
LOOPS = {
    "one token": INTRO + "very " * 400,
    "a word of two": INTRO + "no, " * 300,
    "a sentence": INTRO + SENTENCE * 40,
    "a paragraph": INTRO + (PARAGRAPH + "\n\n") * 12,
    "near-copies": INTRO
    + "".join(
        f"In the city of {NAMES[n % 5]}, traffic has been reduced and its flow made better. " for n in range(100)
    ),
    "numbers that alternate": INTRO + "162 - 81 = 81 + 81 = " * 100,
    "chinese sentence": "下面是答案。" + "我们需要继续努力，才能取得更好的成绩。" * 40,
    "chinese word": "他笑了：" + "哈哈" * 300,
    "line ends": INTRO + "\n" * 300,
    "blank lines": INTRO + " \n" * 300,
    "blanks": INTRO + " " * 3000,
    "dashes": INTRO + "-" * 6000,
    "digits": "1/3 = 0." + "3" * 2000,
    "digits of 1/7": "1/7 = 0." + "142857" * 300,
    "open brackets": INTRO + "[[" * 600,
    "two lines in turn": INTRO
    + "".join(f"There may be names that are used for certain {kind} alone. " for kind in ("ages", "trades") * 20),
    "other commas": INTRO + "".join(f"We look at the same small house again{',.;'[n % 3]}\n" for n in range(90)),
    "other line ends": INTRO + "".join(SENTENCE + "\n" * (n % 3) for n in range(60)),
}
ADVANCING = {
    "steps": INTRO + "".join(f"Step {n}: check the result and write it down again.\n" for n in range(1, 300)),
    "numbered names": INTRO + "".join(f"[User{n}], " for n in range(1, 500)),
    "trying numbers": INTRO
    + "".join(f"Let us try x = {n}, which does not satisfy the equation. " for n in range(1, 150)),
    "chinese steps": "步骤如下：\n" + "".join(f"第{n}步：检查结果，然后再写一遍。\n" for n in range(1, 160)),
    "chinese numerals": "步骤如下：\n"
    + "".join(
        f"第{tens}十{ones}步：检查结果，然后再写一遍。\n"
        for tens in "二三四五六七八九"
        for ones in "一二三四五六七八九"
    ),
    "the same item from the first on": INTRO + "".join(f"{n}. {PARAGRAPH}\n\n" for n in range(1, 60)),
    "verses": "".join(f"{n} green bottles hanging on the wall, {n} green bottles, oh.\n" for n in range(200, 0, -1)),
    "deeper": "".join(" " * 2 * n + "if the door is shut then open the door and go on:\n" for n in range(60)),
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("watch", [by_tokens, by_text])
def test_every_loop_is_told(name, watch):
    found = watch(LOOPS[name])
    assert found is not None
    assert 0 <= found.onset < found.keep <= found.at


@pytest.mark.parametrize(
    "name", ["one token", "a sentence", "two lines in turn", "chinese sentence", "line ends", "blanks"]
)
def test_loops_with_a_short_turn_are_told_early(name):
    assert by_tokens(LOOPS[name]).at < 500


PAST_ALL = "They put what others need before their own wants, and both sides gain more by that than by anything else."
PRIMES = [p for p in range(2, 264) if all(p % q for q in range(2, p))]
POEM = """The wind is low, the wind is low,
And over the hill the rivers flow,
And over the hill my love did go,
The wind is low, the wind is low.

"""
RECORDS = ",\n".join(
    f'  {{"id": {n}, "name": "{WORDS[n * 7 % 50]}{WORDS[n * 3 % 47]}", "city": "{NAMES[n % 5]}", "active": true}}'
    for n in range(60)
)
SPARED = {
    "prose": novel(3000),
    "quoted twice": INTRO + PARAGRAPH + "\n\nAs said before:\n\n" + PARAGRAPH + "\n\nTo repeat it:\n\n" + PARAGRAPH,
    "json": "[\n" + RECORDS + "\n]",
    "table": "| name | place | price |\n| --- | --- | --- |\n"
    + "".join(f"| {novel(1, n)} | {novel(1, n + 99)} | {n * 37 % 101}.{n * 53 % 97} |\n" for n in range(60)),
    "number table": "".join(" | ".join(str(n * k) for k in range(1, 10)) + "\n" for n in range(1, 10)),
    "matrix": "A = [" + "; ".join(" ".join("0" * 6) for _ in range(6)) + "]",
    "bullets": "".join(f"- **{novel(1, n).title()}**: {novel(9, n)}.\n" for n in range(60)),
    "numbered list": "".join(f"{n}. {novel(6, n)}\n" for n in range(1, 60)),
    "code": "".join(f"    if {novel(1, n)} is not None:\n        return self.{novel(1, n + 7)}\n" for n in range(40)),
    "poem": POEM * 2 + novel(60) + "\n" + POEM,
    "refrain": "".join(f"{novel(30, n)}\nOh, the wind is low, and so are we!\n\n" for n in range(12)),
    "third": "1/3 = 0." + "3" * 60 + " and 2/3 = 0." + "6" * 60,
    "ten million": "10000000 times 100000000 is 1" + "0" * 100,
    "countdown": " ".join(str(n) for n in range(10, -1, -1)),
    "laughing": INTRO + "ha" * 15 + " " + novel(40),
    "rule": INTRO + "-" * 40 + "\n" + novel(40) + "\n" + "=" * 40,
    "spaced": "\n\n\n".join(novel(5, n) for n in range(40)),
    "chinese prose": "".join(random.Random(3).choices([chr(c) for c in range(0x4E00, 0x4F00)], k=2000)),
    "chinese list": "".join(
        f"{n}、{''.join(random.Random(n).choices('天地玄黄宇宙洪荒日月盈昃辰宿列张', k=9))}。\n" for n in range(1, 40)
    ),
    "chinese poem": "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n" * 3,
    "table of wide columns": "| **Pros** | **Cons** |\n" + "|" + "-" * 74 + "|" + "-" * 74 + "|\n" + "| good | bad |\n",
    "tablature": "".join(f"{string}|" + "-" * 16 + "|" + "-" * 16 + "|\n" for string in "EADGBE") + novel(9),
    "items up to ten": INTRO + "".join(f"{n}. {PARAGRAPH}\n\n" for n in range(1, 11)),
    "items up to twenty": INTRO + "".join(f"{n}. {PAST_ALL}\n\n" for n in range(1, 21)),
    "items up to a hundred": INTRO + "".join(f"({n}) the setting of a tale\n" for n in range(1, 101)),
    "countdown in words": INTRO
    + "".join(f"With {n} of them this is too many by far, so we try less. " for n in range(40, -1, -1)),
    "an equation left at last": "So we set both equal:\n"
    + "\\[\n8a + 2b + 26 = 10a + 2b + 42\n\\]\n" * 6
    + f"Now for the value of P(5): {novel(200)}",
    "divisors": "".join(f"{263} = {p} * {263 // p} + {263 % p}, so 263 is not divisible by {p}. " for p in PRIMES),
    "times table": "".join(f"{a}×{b}={a * b} " for a in range(1, 10) for b in range(1, a + 1)),
}


@pytest.mark.parametrize("name", [*SPARED, *ADVANCING])
@pytest.mark.parametrize("watch", [by_tokens, by_text])
def test_honest_repetition_is_spared(name, watch):
    assert watch({**SPARED, **ADVANCING}[name]) is None


@pytest.mark.parametrize(
    ("prompt", "turns"),
    [
        ("Repeat the sentence 100 times, please", 125),
        ("write 'I will not talk' fifty times", 62),
        ("请把“好好学习”抄写三十遍", 37),
        ("重复一百遍：好", 125),
        ("Say it over and over", 125),
        ("Print three copies of the letter", 4),
        ("Name three rivers", 0),
        ("write it twice", 3),
        ("不断重复这句话", 125),
        ("Draw a 16x16 grid of dots", 320),
        ("Make a table with 1,000 rows", 1250),
        ("Show 2048 zeros", 2560),
        ("Write a 500-word essay on the 2000 election", 0),
        ("Make sure that the letter e appears at least 50 times", 0),
        ("The word story should appear at least 40 times", 0),
        ("Write an essay about rivers", 0),
        ("Drum tab of 16 bars of rock", 20),
        ("16x16 all-ones matrix in Python", 320),
        ("100 inserts", 125),
        ("Why are there 16 bars in a verse?", 0),
        ("The story is about a river with 16 bridges, and about a town with nobody in it", 0),
        ("", 0),
    ],
)
def test_what_the_prompt_wants(prompt, turns):
    assert turns_wanted(prompt) == turns


@pytest.mark.parametrize("watch", [by_tokens, by_text])
@pytest.mark.parametrize("prompt", ["Repeat this sentence 60 times.", "请把下面这句话重复六十遍。"])
def test_what_was_asked_for_is_spared_but_not_for_ever(watch, prompt):
    assert watch(SENTENCE * 60) is not None
    assert watch(SENTENCE * 60, prompt) is None
    assert watch(SENTENCE * 200, prompt) is not None
    assert watch(SENTENCE * 200, [{"role": "user", "content": prompt}]).at > watch(SENTENCE * 200).at


FIRST = INTRO + "".join(f"{n}. {novel(14, n)}.\n" for n in range(1, 13))


def stuck(last: int, item: str = PAST_ALL) -> str:
    return FIRST + "".join(f"{n}. {item}\n" for n in range(13, last + 1))


@pytest.mark.parametrize("watch", [by_tokens, by_text])
def test_a_list_that_is_stuck_on_one_sentence_is_told_past_twenty_after_a_complete_item(watch):
    assert watch(stuck(20)) is None
    text = stuck(60)
    found = watch(text)
    units = text if watch is by_text else Tokens().encode(text)
    assert len(stuck(20)) < len(text[: found.at]) if watch is by_text else found.at < len(units) // 2
    assert found.keep == found.at, "a stuck list advances: nothing of it is taken back"


def test_a_stuck_list_is_told_at_the_end_of_a_line():
    text = stuck(60)
    found = by_text(text, size=1)
    assert text[: found.keep].endswith(PAST_ALL + "\n")


@pytest.mark.parametrize("watch", [by_tokens, by_text])
def test_short_items_may_go_on_to_a_hundred(watch):
    short = "the old setting of a tale by some other hand once more"
    assert watch(stuck(99, short)) is None
    assert watch(stuck(120, short)) is not None


@pytest.mark.parametrize("watch", [by_tokens, by_text])
@pytest.mark.parametrize("prompt", ["List 40 rules of trade.", "列出四十条规则", "Name thirty, no, forty rules."])
def test_a_stuck_list_may_go_on_to_the_number_that_was_asked_for(watch, prompt):
    assert watch(stuck(40)) is not None
    assert watch(stuck(40), prompt) is None
    assert watch(stuck(90), prompt) is not None


@pytest.mark.parametrize(("item", "told"), [("word", False), ("| 0 | 0 | ok |", False), (PAST_ALL, True)])
def test_only_prose_is_stuck(item, told):
    reader = NumberedList()
    assert any(reader.read(line, 0) for line in stuck(60, item).split("\n")) is told


def test_an_answer_that_advances_for_long_is_noticed_and_not_stopped():
    detector = RunawayDetector()
    for n in range(199):
        detector.push_text(f"INSERT INTO t VALUES ({n}, 0);\n")
    assert detector.notice is None
    detector.push_text("INSERT INTO t VALUES (199, 0);\n")
    assert (detector.notice.lines, detector.runaway) == (200, None)


def test_turns_that_differ_must_go_on_for_longer_than_turns_that_do_not():
    same = "".join(f"We try 7 and 9, which gives 63 and is too much for {name}. " for name in ["them"] * 60)
    draw = random.Random(2).randrange
    tried = "".join(f"We try {draw(99)} and 9, which gives {draw(99)} and is too much for them. " for _ in range(60))
    assert by_tokens(same).at < 300
    assert by_tokens(tried) is None


def test_a_prompt_that_is_a_list_grants_a_list():
    rows = "".join(f"Row of {name}: the value is ready and the state is good.\n" for name in NAMES * 8)
    assert by_text(rows) is not None
    assert by_text(rows, "Put this into capitals:\n" + rows) is None


@pytest.mark.parametrize("rule", ["-" * 80, "10000000000 x 0.0000000", "no no no no"])
def test_a_rule_in_the_prompt_grants_nothing(rule):
    assert turns_wanted(f"Is this a title?\n{rule}\nOr a dream?") == 0


def test_a_long_text_may_be_copied_as_often_as_was_asked():
    letter = novel(400) + ".\n\n"
    assert by_tokens(letter * 3 + "Done.", "Print three copies of the letter.") is None
    assert by_tokens(letter * 3 + "Done.", "Print the letter.") is not None


def test_a_wish_at_either_end_of_a_long_prompt_is_read():
    document = novel(6000)
    assert turns_wanted(f"Repeat it 100 times:\n{document}") == 125
    assert turns_wanted(f"{document}\nRepeat it 100 times.") == 125
    assert turns_wanted(f"{document}\nWrite it 100 times.\n{document}") == 0, "the middle of a long text is not read"


def test_numbers_without_end_are_read():
    assert turns_wanted("Write 1" + ",000" * 5000 + " rows") >= 0
    assert turns_wanted("Draw a " + "9x" * 5000 + "9 grid") < 10**10


@pytest.mark.parametrize("piece", ["写一", "一", "1", "1 ", "1x", "say ", "write 40 times ", "mak", "\n", "-", "to a "])
def test_reading_a_prompt_takes_time_in_proportion_to_its_length(piece, monkeypatch):
    steps = 0
    back = VerbatimRun._back

    def counted(self, *args):
        nonlocal steps
        steps += (length := back(self, *args))
        return length

    monkeypatch.setattr(VerbatimRun, "_back", counted)
    text = (piece * 20_000)[:20_000]
    turns_wanted(f"write {text}")
    assert steps < 8 * len(text), "units compared again and again"


def test_an_ordinary_prompt_grants_nothing():
    assert by_text(LOOPS["a sentence"], "Write about models.").at == by_text(LOOPS["a sentence"]).at


def test_exact_loop_is_cut_to_its_first_turn_in_tokens():
    detector = RunawayDetector()
    ids = [*range(1000, 1050), *list(range(7)) * 100]
    found = next(found for token in ids if (found := detector.push(token)))
    assert (found.onset, found.period, found.keep) == (50, 7, 57)
    assert ids[: found.keep] == [*range(1000, 1050), *range(7)]


def test_exact_loop_is_cut_to_its_first_turn_in_characters():
    text = "一开始。" + "我们继续努力吧，" * 60
    found = by_text(text)
    assert text[: found.keep] == "一开始。我们继续努力吧，"


@pytest.mark.parametrize("watch", [by_tokens, by_text])
def test_what_differs_in_a_comma_is_a_loop_but_is_not_taken_back(watch):
    found = watch(LOOPS["other commas"])
    assert found.keep > found.at - 2 * found.period, "the last turn differs from the one before it"


def test_floods_keep_what_came_before():
    text = "Done." + "\n" * 100
    found = by_text(text)
    assert text[: found.keep].rstrip("\n") == "Done."
    digits = "x = 0." + "3" * 900
    assert digits[: by_tokens(digits).keep].startswith("x = 0.3")
    assert by_tokens(digits).keep < 20


@pytest.mark.parametrize("name", ["a sentence", "chinese sentence", "digits", "blank lines", "near-copies"])
def test_where_the_text_is_cut_makes_no_difference(name):
    reports = {(found.onset, found.period) for size in (1, 2, 3, 13, 50) if (found := by_text(LOOPS[name], size=size))}
    assert len(reports) == 1


def test_pieces_that_end_with_a_full_stop_are_a_loop_too():
    assert by_text(INTRO + SENTENCE * 40, size=len(SENTENCE)) is not None
    detector = RunawayDetector()
    assert any(detector.push_text(SENTENCE) for _ in range(60))


def test_units_do_not_depend_on_the_pieces():
    text = "Hello  world, 12345 naïve Ωμέγα привет 你好 x\n\n\ty\ufffd!" * 3 + "."
    whole = TextUnits().push(text)
    split = TextUnits()
    assert [pair for character in text for pair in split.push(character)] == whole
    assert all(text[start : start + len(unit.text)] == unit.text for start, unit in whole)


def test_a_row_of_one_sign_is_read_in_parts():
    parts = [unit.text for _, unit in TextUnits().push("-" * 40 + "……  x;")]
    assert parts == [*["----"] * 10, "……", "  ", "x"]


def test_units_are_about_a_token_each():
    text = "Ein Donaudampfschifffahrtskapitän: 1024 (==) việc 你好吗 привет\ufffd\ufffd."
    assert [unit.text for _, unit in TextUnits().push(text + "!")] == [
        *("Ein", "Do", "na", "ud", "am", "pf", "sc", "hi", "fffahrtskapitän", ":", "1", "0", "2", "4"),
        *("(=", "=)", "việc", "你好", "吗", "при", "вет", "\ufffd", "\ufffd"),
    ]


def test_text_held_back_stays_short():
    units = TextUnits()
    for _ in range(1000):
        units.push("a")
        units.push(" ")
        units.push("é")
    for kind in ("a", " ", "1", "中", "я", "-"):
        for _ in range(500):
            units.push(kind)
            assert len(units._held) <= 32


def test_one_report_and_then_quiet():
    detector = RunawayDetector()
    reports = [found for _ in range(2000) if (found := detector.push(5))]
    assert reports == [detector.runaway]
    assert detector.push_text("more") is None


def test_a_loop_after_a_long_answer_is_still_found():
    found = by_tokens(novel(4 * WINDOW) + ". " + SENTENCE * 60)
    assert found is not None
    assert found.onset >= 4 * WINDOW


def test_two_loops_apart_do_not_add_up():
    assert by_tokens("".join(SENTENCE * 3 + novel(200, n) + ". " for n in range(8))) is None


def test_memory_is_constant():
    def size(detector: RunawayDetector) -> int:
        parts = [
            part
            for owner in (detector, detector._run, detector._list, detector._advance)
            for part in vars(owner).values()
        ]
        return sum(sys.getsizeof(part) for part in parts if part is not detector._units)

    detector = RunawayDetector()
    draw = random.Random(0)
    for _ in range(WINDOW):
        detector.push(draw.randrange(50_000))
    before = size(detector)
    for _ in range(5 * WINDOW):
        detector.push(draw.randrange(50_000))
    assert size(detector) <= before + 1000
    assert before < 140_000


def test_without_decode_exact_loops_are_found():
    tokens = Tokens()
    detector = RunawayDetector()
    assert any(detector.push(token) for token in tokens.encode(LOOPS["a paragraph"]))


def test_decode_is_asked_once_for_all_answers():
    asked = []

    def decode(token_id: int) -> str:
        asked.append(token_id)
        return f" word{token_id}"

    for _ in range(3):
        detector = RunawayDetector(decode=decode)
        for token in range(50):
            detector.push(token)
    assert sorted(asked) == list(range(50))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (" the", "word"),
        ("四", "word"),
        ("\ufffd", "word"),
        (" 12", ""),
        ("a", ""),
        ("²", ""),
        ("|", ""),
        (" ", "filler"),
        ("\n\n", "filler end"),
        (".\n", "filler"),
        ("    ", ""),
        ("", "filler"),
    ],
)
def test_kinds_of_units(text, kinds):
    symbol = read_unit(text).symbol
    bits = {"word": WORD, "filler": FILLER, "end": LINE_END}
    assert [name for name, bit in bits.items() if symbol & bit] == kinds.split()


@pytest.mark.parametrize(("numerals", "value"), [("十", 10), ("三百二十", 320), ("两千零五", 2005), ("一万", 10_000)])
def test_chinese_numbers(numerals, value):
    assert chinese_number(numerals) == value


def test_prompts_of_every_shape():
    parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url"}]}]
    assert prompt_text("hi") == "hi"
    assert prompt_text(parts) == "hi"
    assert prompt_text([{"role": "user", "content": None}]) == ""
    assert prompt_text(None) == prompt_text(3) == ""
