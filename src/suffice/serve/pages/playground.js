// The playground: a conversation over /v1/chat/completions, with its budget in view.

import { BudgetBar } from "./budget.js";
import { Dashboard } from "./dashboard.js";
import { render } from "./markdown.js";
import { Usage } from "./usage.js";
import { WORDS } from "./words.js";

const at = (id) => document.getElementById(id);
const store = { get: (name) => { try { return localStorage.getItem(name); } catch { return null; } },
                set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* private window */ } } };

let language = store.get("suffice-language") || (navigator.language.startsWith("zh") ? "zh" : "en");
const words = () => WORDS[language];
const bar = new BudgetBar(words);
const dashboard = new Dashboard(words);
const usage = new Usage(words, headers);
const turns = [];  // {role, content, box, end} in order
let running = null;  // AbortController of the answer under way

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const each of document.querySelectorAll("[data-text]")) each.textContent = words()[each.dataset.text];
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", words()[each.dataset.label]);
  for (const each of document.querySelectorAll("[data-hint]")) each.placeholder = words()[each.dataset.hint];
  const other = language === "zh" ? "en" : "zh";
  at("language").textContent = other === "zh" ? "中文" : "English";
  at("language").lang = other;
  at("language").setAttribute("aria-label", other === "zh" ? "切换为中文" : "Switch to English");
  for (const turn of turns) showEnd(turn);
  bar.draw();
  dashboard.draw();
  usage.draw();
}

function headers() {
  const key = at("key").value.trim();
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

function message({ role, content, copies }) {  // without the turns of a loop that only repeat: they invite another one
  if (!copies) return { role, content };
  const characters = [...content];
  return { role, content: [...characters.slice(0, copies[0]), ...characters.slice(copies[1])].join("") };
}

function wanted(messages) {
  const most = parseInt(at("most").value, 10);
  return { messages, tier: at("tier").value, max_tokens: most > 0 ? most : "auto" };
}

function addTurn(role, content) {
  const box = document.createElement("article");
  box.className = role;
  const who = document.createElement("div");
  who.className = "who";
  who.dataset.text = role === "user" ? "you" : "model";
  who.textContent = words()[who.dataset.text];
  const body = document.createElement("div");
  const end = document.createElement("div");
  end.hidden = true;
  box.append(who, body, end);
  at("log").append(box);
  const turn = { role, content, body, end, finish: null };
  turns.push(turn);
  showText(turn);
  return turn;
}

function following(change, always = false) {  // keeps the end in view of somebody who is looking at it
  const log = at("log");
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  change();
  if (follows || always) log.scrollTop = log.scrollHeight;
}

function showText(turn) {
  const user = turn.role === "user";
  following(() => turn.body.replaceChildren(...(user ? [turn.content] : render(turn.content))), user);
}

function endText({ reason, detail, what, tokens }) {
  const said = words();
  if (reason === "failed") return `${said.failed}: ${what}`;
  if (reason === "aborted") return said.stopped;
  const length = `${tokens} ${said.tokens}`;
  if (detail === "repetition") return `${said.repetition} · ${length}`;
  if (detail === "stop_word") return `${said.stopWord} · ${length}`;
  if (reason === "length") return said.cut(length, said.limits[detail] || detail);
  return `${said.ended} · ${length}`;
}

function showEnd(turn) {
  if (!turn.finish) return;
  const { reason } = turn.finish;
  turn.end.hidden = false;
  turn.end.className = `end ${reason === "length" ? "cut" : reason === "failed" ? "failed" : ""}`;
  turn.end.replaceChildren(endText(turn.finish));
  const cut = reason === "length" && turn.finish.detail !== "repetition";  // a loop would only go on
  if (turn === turns.at(-1) && turn.content && (cut || reason === "aborted")) {
    const proceed = document.createElement("button");
    proceed.textContent = words().proceed;
    proceed.addEventListener("click", () => answer(turn));
    turn.end.append(proceed);
  }
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (let step; !(step = await reader.read()).done;) {
    held += step.value;
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) if (block !== "data: [DONE]") yield JSON.parse(block.slice(6));
  }
}

async function stream(turn, signal) {
  const messages = turns.filter((each) => each.content).map(message);
  const body = { ...wanted(messages), stream: true, stream_options: { include_usage: true } };
  const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error((await response.json()).error.message);
  const before = [...turn.content].length;
  let pieces = 0;
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices[0];
    if (event.suffice && !event.suffice.finish_detail) bar.show(event.suffice.budget, "running");
    if (choice?.delta.content) {
      turn.content += choice.delta.content;
      bar.count(++pieces);
      showText(turn);
    }
    if (choice?.finish_reason) {
      turn.finish = { reason: choice.finish_reason, detail: event.suffice.finish_detail, what: event.suffice.finish_what };
      turn.copies = event.suffice.repetition?.copies?.map((place) => before + place);
    }
    if (event.usage) {
      bar.count(event.usage.completion_tokens);
      turn.finish.tokens = event.usage.completion_tokens;
    }
  }
}

async function answer(turn) {
  running = new AbortController();
  at("stop").hidden = false;
  at("send").disabled = true;
  at("state").textContent = "";
  turn.finish = null;
  turn.end.hidden = true;
  try {
    await stream(turn, running.signal);
  } catch (error) {
    const aborted = running.signal.aborted;
    turn.finish = { reason: aborted ? "aborted" : "failed", what: error instanceof TypeError ? words().gone : error.message };
  } finally {
    running = null;
    at("stop").hidden = true;
    at("send").disabled = false;
    bar.title = "budget";
    bar.draw();
    following(() => showEnd(turn));
    at("state").textContent = "";
  }
}

function send() {
  const text = at("prompt").value.trim();
  if (!text || running) return;
  for (const each of turns) if (each.finish) each.end.querySelector("button")?.remove();
  at("prompt").value = "";
  addTurn("user", text);
  answer(addTurn("assistant", ""));
}

let waiting = 0;
function preview() {
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    const text = at("prompt").value.trim();
    if (running || !text) return;
    const messages = [...turns.filter((each) => each.content).map(message), { role: "user", content: text }];
    try {
      const response = await fetch("v1/budget", { method: "POST", headers: headers(), body: JSON.stringify(wanted(messages)) });
      const said = await response.json();
      at("state").textContent = response.ok ? "" : said.error.message;
      if (response.ok && !running) bar.show(said.budget, "preview");
    } catch {
      at("state").textContent = words().gone;
    }
  }, 300);
}

function choose(tab) {
  for (const name of ["chat", "dashboard"]) {
    at(`tab-${name}`).setAttribute("aria-selected", name === tab);
    at(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
    at(`view-${name}`).hidden = name !== tab;
  }
  for (const each of [dashboard, usage]) each.watch(tab === "dashboard");
}

async function loadTiers() {
  const { paths } = await (await fetch("openapi.json")).json();
  const names = Object.keys(paths).filter((path) => path.startsWith("/infer/")).map((path) => path.slice(7)).filter((name) => name !== "auto");
  at("tier").append(...names.map((name) => new Option(name, name)));
}

at("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
for (const id of ["prompt", "tier", "most", "key"]) at(id).addEventListener("input", preview);
at("stop").addEventListener("click", () => running?.abort());
at("clear").addEventListener("click", () => {
  running?.abort();
  turns.length = 0;
  at("log").replaceChildren();
  bar.clear();
  at("prompt").focus();
});
at("language").addEventListener("click", () => { language = language === "zh" ? "en" : "zh"; store.set("suffice-language", language); translate(); });
at("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--paper").trim() === "#16181b";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  store.set("suffice-theme", document.documentElement.dataset.theme);
});
for (const name of ["chat", "dashboard"]) {
  at(`tab-${name}`).addEventListener("click", () => choose(name));
  at(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = name === "chat" ? "dashboard" : "chat";
    choose(other);
    at(`tab-${other}`).focus();
  });
}

const theme = store.get("suffice-theme");
if (theme) document.documentElement.dataset.theme = theme;
translate();
loadTiers();
if (location.hash === "#dashboard") choose("dashboard");
