"""What LiteLLM makes of a server: python litellm_client.py URL MODEL TOOLS, JSON on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

import litellm

url, model, tools = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
user = [{"role": "user", "content": "one two three"}]
found: dict[str, Any] = {}


def ask(messages: Any = user, **fields: Any) -> Any:
    return litellm.completion(
        model=f"openai/{model}", api_base=url, api_key="none", max_retries=0, messages=messages, **fields
    )


whole = ask()
found["text"], found["usage"] = whole.choices[0].message.content, whole.usage.completion_tokens
chunks = list(ask(stream=True, stream_options={"include_usage": True}))
found["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
found["streamed_usage"] = chunks[-1].usage.completion_tokens
found["n"] = [choice.message.content for choice in ask(n=2).choices]

choice = ask(tools=tools).choices[0]
call = choice.message.tool_calls[0]
found["call"] = [call.function.name, json.loads(call.function.arguments), choice.finish_reason]
choice = litellm.stream_chunk_builder(list(ask(tools=tools, stream=True))).choices[0]
call = choice.message.tool_calls[0]
found["streamed_call"] = [call.function.name, json.loads(call.function.arguments), choice.finish_reason]
answer = {"role": "tool", "tool_call_id": call.id, "content": "it is sunny"}
found["answered"] = ask([*user, choice.message.model_dump(), answer]).choices[0].message.content

logprobs = ask(logprobs=True, top_logprobs=1).choices[0].logprobs
found["logprobs"] = [entry["token"] for entry in logprobs["content"]]
try:
    ask(temperature=5)
except litellm.BadRequestError as error:
    found["error"] = "temperature" if "temperature" in str(error) else str(error)
print(json.dumps(found))
