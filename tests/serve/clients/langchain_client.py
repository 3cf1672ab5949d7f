"""What LangChain's client makes of a server: python langchain_client.py URL MODEL TOOLS, JSON on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import BadRequestError

url, model, tools = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])


def chat(**fields: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=url, model=model, api_key="none", max_retries=0, **fields)


def streamed(runnable: Any) -> AIMessageChunk:
    first, *more = runnable.stream(user)
    return sum(more, first)


user = [HumanMessage("one two three")]
found: dict[str, Any] = {}

whole = chat().invoke(user)
found["text"], found["usage"] = whole.content, whole.usage_metadata["output_tokens"]
gathered = streamed(chat(stream_usage=True))
found["streamed"], found["streamed_usage"] = gathered.content, gathered.usage_metadata["output_tokens"]
found["n"] = [each.text for each in chat(n=2).generate([user]).generations[0]]

message = chat().bind_tools(tools).invoke(user)
[call] = message.tool_calls
found["call"] = [call["name"], call["args"], message.response_metadata["finish_reason"]]
gathered = streamed(chat().bind_tools(tools))
[call] = gathered.tool_calls
found["streamed_call"] = [call["name"], call["args"], gathered.response_metadata["finish_reason"]]
found["answered"] = chat().invoke([*user, message, ToolMessage("it is sunny", tool_call_id=call["id"])]).content

logprobs = chat(logprobs=True, top_logprobs=1).invoke(user).response_metadata["logprobs"]
found["logprobs"] = [entry["token"] for entry in logprobs["content"]]
try:
    chat(temperature=5).invoke(user)
except BadRequestError as error:
    found["error"] = error.param
print(json.dumps(found))
