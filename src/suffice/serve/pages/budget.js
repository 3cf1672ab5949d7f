// The bar: what is expected (as bands of a distribution), what is used, what is set aside at first, and the cap.

const at = (id) => document.getElementById(id);

export class BudgetBar {
  constructor(words) {
    this.words = words;
    this.clear();
  }

  clear() {
    this.budget = null;
    this.used = 0;
    this.title = "noBudget";
    this.draw();
  }

  show(budget, title) {
    this.budget = budget;
    this.used = 0;
    this.title = title;
    this.draw();
  }

  count(tokens) {
    this.used = tokens;
    this.draw();
  }

  draw() {
    const words = this.words();
    const { budget, used } = this;
    at("budget-title").textContent = words[this.title];
    const cap = budget ? budget.max_new_tokens : 1;
    const share = (tokens) => `${Math.min(100, (100 * tokens) / cap)}%`;
    for (const p of ["50", "90", "99"]) at(`band-${p}`).style.width = budget ? share(budget.quantiles[`p${p}`]) : "0";
    at("median").style.left = budget ? share(budget.expected_tokens) : "-9px";
    at("reserved").hidden = !budget;
    at("reserved").style.width = budget ? share(budget.reservation) : "0";
    at("used").style.width = budget ? share(used) : "0";
    at("bar").setAttribute("aria-valuemax", cap);
    at("bar").setAttribute("aria-valuenow", Math.min(used, cap));
    at("cap").textContent = budget ? cap : "";
    const numbers = budget
      ? `${words.usedTokens} ${used} · ${words.expected} ${budget.expected_tokens} (${words.below} ${budget.quantiles.p90}) · ` +
        `${words.reserved} ${budget.reservation} · ${words.cap} ${cap} (${words.limits[budget.limited_by] || budget.limited_by})`
      : "";
    at("budget-numbers").textContent = numbers;
    at("bar").setAttribute("aria-valuetext", numbers);
    at("reasons").replaceChildren(...(budget ? budget.reasons : []).map((reason) => {
      const item = document.createElement("li");
      item.textContent = reason;
      return item;
    }));
    at("why").hidden = !budget;
  }
}
