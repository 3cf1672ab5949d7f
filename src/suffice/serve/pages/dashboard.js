// Numbers from /metrics, every two seconds while somebody looks.

const EVERY = 2000;
const KEPT = 60;
const LOOPED = { reason: "length", detail: "repetition" };
const LINE = /^([a-zA-Z_:]\w*(?::\w+)*)(?:\{(.*)\})? (\S+)$/;

export function parse(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = LINE.exec(line);
    if (!match || line.startsWith("#")) continue;
    const labels = {};
    for (const [, name, value] of (match[2] || "").matchAll(/(\w+)="([^"]*)"/g)) labels[name] = value;
    found.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return found;
}

const sum = (metrics, name, wanted = {}) =>
  metrics.filter((each) => each.name === name && Object.entries(wanted).every(([k, v]) => each.labels[k] === v))
    .reduce((total, each) => total + each.value, 0);

function quantile(metrics, name, tier, p) {
  const buckets = metrics.filter((each) => each.name === `${name}_bucket` && each.labels.tier === tier);
  const count = Math.max(0, ...buckets.map((each) => each.value));
  const bucket = buckets.find((each) => each.value >= p * count);
  if (!count || !bucket) return "–";
  return bucket.labels.le === "+Inf" ? "> 600 s" : `≤ ${Number(bucket.labels.le)} s`;
}

export const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
export const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");

export class Looking {  // reads again and again while somebody looks
  constructor(words, every) {
    this.words = words;
    this.every = every;
    this.timer = null;
  }

  watch(on) {
    clearInterval(this.timer);
    if (!on) return;
    this.read();
    this.timer = setInterval(() => this.read(), this.every);
  }
}

export class Dashboard extends Looking {
  constructor(words) {
    super(words, EVERY);
    this.rates = [];
    this.last = null;
    this.metrics = [];
  }

  async read() {
    try {
      this.metrics = parse(await (await fetch("metrics")).text());
    } catch {
      return;
    }
    const tokens = sum(this.metrics, "suffice_answer_tokens_total");
    const now = performance.now();
    if (this.last) this.rates.push((1000 * (tokens - this.last.tokens)) / (now - this.last.now));
    this.rates = this.rates.slice(-KEPT);
    this.last = { tokens, now };
    this.draw();
  }

  draw() {
    const { metrics } = this;
    const words = this.words();
    const ends = (wanted) => sum(metrics, "suffice_request_finish_total", wanted);
    const answers = ends({ reason: "stop" }) + ends({ reason: "length" });
    const cache = metrics.find((each) => each.name === "vllm:kv_cache_usage_perc");
    const cards = [
      [sum(metrics, "suffice_requests_running"), words.runningNow],
      [sum(metrics, "suffice_requests_waiting"), words.waitingNow],
      [sum(metrics, "suffice_tokens_per_second").toFixed(0), words.perSecond],
      [cache ? `${(100 * cache.value).toFixed(1)} %` : "–", words.kv],
      [answers, words.total],
      [share(ends({ reason: "length" }) - ends(LOOPED), answers), words.truncated],
      [share(ends(LOOPED), answers), words.runaways],
    ];
    document.getElementById("cards").replaceChildren(...cards.map(([value, name]) => {
      const card = document.createElement("div");
      card.className = "card";
      const number = document.createElement("b");
      const label = document.createElement("span");
      number.textContent = value;
      label.textContent = name;
      card.append(number, label);
      return card;
    }));
    this.drawRates();
    this.drawTable(words, ends);
  }

  drawRates() {
    const most = Math.max(1, ...this.rates);
    const points = this.rates.map((rate, i) => `${(300 * (i + KEPT - this.rates.length)) / (KEPT - 1)},${57 - (54 * rate) / most}`);
    document.querySelector("#spark polyline").setAttribute("points", points.join(" "));
  }

  drawTable(words, ends) {
    document.getElementById("table-head").replaceChildren(...words.columns.map((name) => cell("th", name)));
    const tiers = [...new Set(this.metrics.filter((each) => each.name === "suffice_request_finish_total").map((each) => each.labels.tier))];
    document.getElementById("table-body").replaceChildren(...tiers.sort().map((tier) => {
      const answers = ends({ tier, reason: "stop" }) + ends({ tier, reason: "length" });
      const tokens = sum(this.metrics, "suffice_answer_tokens_total", { tier });
      const first = "suffice_request_time_to_first_token_seconds";
      const whole = "suffice_request_duration_seconds";
      const row = document.createElement("tr");
      row.append(...[
        tier, answers, share(ends({ tier, reason: "length" }) - ends({ tier, ...LOOPED }), answers), share(ends({ tier, ...LOOPED }), answers),
        answers ? (tokens / answers).toFixed(0) : "–",
        ...[first, whole].flatMap((name) => [0.5, 0.95].map((p) => quantile(this.metrics, name, tier, p))),
      ].map((text) => cell("td", text)));
      return row;
    }));
  }
}
