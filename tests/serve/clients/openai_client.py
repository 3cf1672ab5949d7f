"""What OpenAI's Python client makes of a server: python openai_client.py URL MODEL, JSON on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

from openai import BadRequestError, OpenAI

url, model, tools = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = OpenAI(base_url=url, api_key="none", max_retries=0)
ask: Any = client.chat.completions.create
user = [{"role": "user", "content": "one two three"}]
found: dict[str, Any] = {}

whole = ask(model=model, messages=user)
found["text"], found["usage"] = whole.choices[0].message.content, whole.usage.completion_tokens
chunks = list(ask(model=model, messages=user, stream=True, stream_options={"include_usage": True}))
found["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
found["streamed_usage"] = chunks[-1].usage.completion_tokens

found["n"] = [choice.message.content for choice in ask(model=model, messages=user, n=2).choices]
by_index = ["", ""]
for chunk in ask(model=model, messages=user, n=2, stream=True):
    by_index[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
found["streamed_n"] = by_index

choice = ask(model=model, messages=user, tools=tools).choices[0]
call = choice.message.tool_calls[0]
found["call"] = [call.function.name, json.loads(call.function.arguments), choice.finish_reason]
with client.chat.completions.stream(model=model, messages=user, tools=tools) as stream:
    choice = stream.get_final_completion().choices[0]
call = choice.message.tool_calls[0]
found["streamed_call"] = [call.function.name, json.loads(call.function.arguments), choice.finish_reason]
answered = [
    *user,
    choice.message.model_dump(exclude_none=True),
    {"role": "tool", "tool_call_id": call.id, "content": "it is sunny"},
]
found["answered"] = ask(model=model, messages=answered).choices[0].message.content

logprobs = ask(model=model, messages=user, logprobs=True, top_logprobs=1).choices[0].logprobs
found["logprobs"] = [entry.token for entry in logprobs.content]
try:
    ask(model=model, messages=user, temperature=5)
except BadRequestError as error:
    found["error"] = error.param
print(json.dumps(found))
