"""The playground in a real browser: a conversation, its budget, languages, keys, and no request to anywhere else."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path

import pytest

from browser import CHROMIUM, browser
from serving import serving
from suffice.testing.scripted_engine import ScriptedEngine

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]

ANSWER = """## 标题 title

Some **bold** and `code <b>x</b>`, a [link](https://example.org/a) and a [bad one](javascript:alert(1)).

1. one
2. two

```python
print("<script>alert(1)</script>")
```

<img src=x onerror="document.title='broken'"> """
NAMELESS = """[...document.querySelectorAll("button, input, select, textarea, [role]:not([role=status])")].filter(
  (each) => !each.hidden && !each.ariaLabel && !each.textContent.trim() && !each.labels?.length
            && !each.getAttribute("aria-labelledby")).length"""
"""How many things a screen reader would have no name for."""
PICTURES = os.environ.get("SUFFICE_TEST_PICTURES")
"""A folder for what the pages look like."""


def ended(count: int) -> str:
    return f"document.querySelectorAll('.end:not([hidden])').length >= {count}"


def test_a_conversation_in_a_browser(tmp_path: Path) -> None:
    pictures = Path(PICTURES) if PICTURES else tmp_path

    async def look(url: str) -> None:
        async with browser(url) as page:
            await page.until("document.querySelectorAll('#tier option').length === 5")
            await page.run("document.getElementById('prompt').focus()")
            await page.type("用三点说明 KV 缓存")
            await page.until("document.getElementById('cap').textContent !== ''")
            numbers = await page.run("document.getElementById('budget-numbers').textContent")
            assert re.search(r"used 0 · expected \d+ \(90 % below (\d+)\) · reserved at first \1 · cap \d+", numbers)
            assert await page.run("parseFloat(document.getElementById('reserved').style.width)") > 0
            await page.press("Enter", "\r", 13)
            await page.until(ended(1))
            html = await page.run("document.querySelector('article.assistant').innerHTML")
            assert "<h4>标题 title</h4>" in html
            assert "<strong>bold</strong>" in html
            assert "<code>code &lt;b&gt;x&lt;/b&gt;</code>" in html
            assert '<ol start="1"><li>one</li><li>two</li></ol>' in html
            assert "javascript:" not in await page.run(
                "[...document.querySelectorAll('article a')].map((a) => a.href).join()"
            )
            assert await page.run("document.querySelectorAll('article script, article img').length") == 0
            assert await page.run("document.title") == "Suffice"
            assert "Ended by itself" in await page.run("document.querySelector('.end').textContent")
            assert await page.run("document.getElementById('bar').getAttribute('aria-valuenow')") == str(len(ANSWER))
            await page.picture(pictures / "playground.png")

            await page.run("document.getElementById('most').value = '20'")
            await page.run("document.getElementById('prompt').focus()")
            await page.type("again")
            await page.press("Enter", "\r", 13)
            await page.until(ended(2))
            assert "Cut at 20 tokens, by your number" in await page.run(
                "[...document.querySelectorAll('.end')].at(-1).textContent"
            )
            before = await page.run("[...document.querySelectorAll('article')].at(-1).textContent.length")
            await page.run("document.querySelector('.end button').click()")
            await page.until(
                f"[...document.querySelectorAll('article')].at(-1).textContent.length > {before} && {ended(2)}"
            )
            assert await page.run("document.querySelectorAll('article').length") == 4

            await page.run("document.getElementById('language').click()")
            assert await page.run("document.documentElement.lang") == "zh-CN"
            assert "自然结束" in await page.run("document.querySelector('.end').textContent")
            await page.run("document.getElementById('theme').click()")
            await page.picture(pictures / "playground-zh-dark.png")

            await page.run("document.getElementById('tier').value = 'unlimited'")
            await page.run("document.getElementById('prompt').focus()")
            await page.type("more")
            await page.press("Enter", "\r", 13)
            await page.until("document.querySelector('.end.failed') !== null")
            assert "needs a key" in await page.run("document.querySelector('.end.failed').textContent")

            await page.until("fetch('v1/usage').then((r) => r.json()).then((said) => said.data[0]?.requests === 4)")
            await page.run("document.getElementById('tab-dashboard').click()")
            await page.until("document.querySelectorAll('#table-body tr').length > 0")
            await page.until("document.querySelectorAll('#usage-days tbody tr').length > 0")
            days = await page.run("document.querySelector('#usage-days tbody tr').textContent")
            assert days.startswith(time.strftime("%Y-%m-%d41", time.gmtime()))  # the day, four requests, one refused
            assert await page.run("document.querySelectorAll('#days rect').length") == 30
            assert await page.run("document.querySelector('#days rect:last-child').height.baseVal.value") == 56
            tiers = await page.run(
                "[...document.querySelectorAll('#usage-tiers tbody td:first-child')].map((e) => e.textContent)"
            )
            assert tiers == ["-", "short", "standard"]
            await page.run("document.getElementById('usage-days').scrollIntoView()")
            await page.picture(pictures / "dashboard-usage.png")
            await page.run("document.getElementById('view-dashboard').scrollTo(0, 0)")
            await page.picture(pictures / "dashboard.png")
            assert await page.run(NAMELESS) == 0
            assert all(request.startswith((url, "data:")) for request in page.requests), page.requests
            assert [each for each in page.complaints if "401" not in each] == []

    with serving(ScriptedEngine(ANSWER)) as server:
        asyncio.run(look(server.url))


def test_escape_stops_an_answer(tmp_path: Path) -> None:
    engine = ScriptedEngine("x " * 2000, slow=True, context=9000)

    async def look(url: str) -> None:
        async with browser(url) as page:
            await page.until("document.querySelectorAll('#tier option').length === 5")
            await page.run("document.getElementById('prompt').focus()")
            await page.type("go on")
            await page.press("Enter", "\r", 13)
            await page.until("document.querySelector('article.assistant')?.textContent.length > 30")
            await page.press("Escape", code=27)
            await page.until(ended(1))
            assert "Stopped by you" in await page.run("document.querySelector('.end').textContent")

    with serving(engine) as server:
        asyncio.run(look(server.url))
        assert engine.cancelled
