// What the caller used in the last weeks, from the server's accounts: /v1/usage.

import { Looking, cell, share } from "./dashboard.js";

const EVERY = 30000;
const DAYS = 30;
const DAY = 86400000;
const WIDTH = 10;  // of a day's column, in the picture's own units
const HEIGHT = 60;

export class Usage extends Looking {
  constructor(words, headers) {
    super(words, EVERY);
    this.headers = headers;
    this.days = [];
    this.tiers = [];
    this.refusal = "";
    this.turn = 0;
  }

  async read() {
    const turn = ++this.turn;  // an answer that was asked for with another key may come after the next one's
    let found = [[], []];
    let refusal = "";
    try {
      found = await Promise.all(["day", "tier"].map((by) => this.ask(by)));
    } catch (error) {
      refusal = error instanceof TypeError ? this.words().gone : error.message;
    }
    if (turn !== this.turn) return;
    [this.days, this.tiers] = found;
    this.refusal = refusal;
    this.draw();
  }

  async ask(by) {
    const response = await fetch(`v1/usage?by=${by}&days=${DAYS}`, { headers: this.headers() });
    const said = await response.json();
    if (!response.ok) throw new Error(said.error.message);
    return said.data;
  }

  draw() {
    const words = this.words();
    const note = document.getElementById("usage-note");
    const said = this.refusal || words.ownUsage;
    if (note.textContent !== said) note.textContent = said;  // else a screen reader says it at each look
    this.drawTable("usage-tiers", words.tierColumn, this.tiers);
    this.drawTable("usage-days", words.dayColumn, [...this.days].reverse());
    this.drawDays(words);
  }

  drawTable(id, first, rows) {
    const head = document.createElement("tr");
    head.append(...[first, ...this.words().usageColumns].map((name) => cell("th", name)));
    document.querySelector(`#${id} thead`).replaceChildren(head);
    document.querySelector(`#${id} tbody`).replaceChildren(...rows.map((each) => this.row(each)));
    document.getElementById(id).hidden = !rows.length;
  }

  row({ name, requests, errors, cancelled, prompt_tokens, answer_tokens, truncated, runaways }) {
    const answers = requests - errors - cancelled;
    const row = document.createElement("tr");
    const values = [name, requests, errors, prompt_tokens, answer_tokens, share(truncated, answers), share(runaways, answers)];
    row.append(...values.map((value) => cell("td", value.toLocaleString())));
    return row;
  }

  drawDays(words) {
    const known = new Map(this.days.map((each) => [each.name, each]));
    const names = Array.from({ length: DAYS }, (_, i) => new Date(Date.now() - (DAYS - 1 - i) * DAY).toISOString().slice(0, 10));
    const most = Math.max(1, ...this.days.map((each) => each.answer_tokens));
    const make = (tag, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      return made;
    };
    document.getElementById("days").replaceChildren(...names.map((name, i) => {
      const day = known.get(name);
      const height = day ? Math.max(1, ((HEIGHT - 4) * day.answer_tokens) / most) : 0;
      const bar = make("rect", { x: i * WIDTH + 1, width: WIDTH - 2, y: HEIGHT - height, height });
      const title = make("title", {});
      title.textContent = `${name}: ${(day?.answer_tokens ?? 0).toLocaleString()} ${words.tokens}, ${day?.requests ?? 0} ${words.requests}`;
      bar.append(title);
      return bar;
    }));
    document.getElementById("days-first").textContent = names[0];
    document.getElementById("days-most").textContent = `${words.atMost} ${most.toLocaleString()} ${words.tokens}`;
    document.getElementById("days-last").textContent = names.at(-1);
  }
}
