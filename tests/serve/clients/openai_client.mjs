// What OpenAI's JavaScript client makes of a server: node openai_client.mjs URL MODEL TOOLS, JSON on standard output.
// It is run in a folder that has the package `openai`.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const { default: OpenAI, BadRequestError } = require("openai");

const [url, model, tools] = [process.argv[2], process.argv[3], JSON.parse(process.argv[4])];
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const user = [{ role: "user", content: "one two three" }];
const ask = (fields = {}) => client.chat.completions.create({ model, messages: user, ...fields });
const found = {};

const whole = await ask();
found.text = whole.choices[0].message.content;
found.usage = whole.usage.completion_tokens;
found.streamed = "";
for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
  found.streamed += chunk.choices[0]?.delta.content ?? "";
  if (chunk.usage) found.streamed_usage = chunk.usage.completion_tokens;
}

found.n = (await ask({ n: 2 })).choices.map((choice) => choice.message.content);
const several = await client.chat.completions.stream({ model, messages: user, n: 2 }).finalChatCompletion();
found.streamed_n = several.choices.map((choice) => choice.message.content);

const called = (choice) => {
  const call = choice.message.tool_calls[0].function;
  return [call.name, JSON.parse(call.arguments), choice.finish_reason];
};
found.call = called((await ask({ tools })).choices[0]);
const [choice] = (await client.chat.completions.stream({ model, messages: user, tools }).finalChatCompletion()).choices;
found.streamed_call = called(choice);
const answer = { role: "tool", tool_call_id: choice.message.tool_calls[0].id, content: "it is sunny" };
found.answered = (await ask({ messages: [...user, choice.message, answer] })).choices[0].message.content;

const { logprobs } = (await ask({ logprobs: true, top_logprobs: 1 })).choices[0];
found.logprobs = logprobs.content.map((entry) => entry.token);
try {
  await ask({ temperature: 5 });
} catch (error) {
  found.error = error instanceof BadRequestError ? error.param : String(error);
}
console.log(JSON.stringify(found));
