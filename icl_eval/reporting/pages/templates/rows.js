"use strict";

/**
 * A paginated table with search, filters, sorting and expandable rows.
 *
 * `rows` is an array, or has a `size` and a method `slice(from, to)` that promises rows: only the rows of the page that is
 * shown are read until something is searched, filtered or sorted. That is done in small steps, so that the page never
 * stalls, and begins anew if something else is asked meanwhile.
 *
 * A column is `{title, value, text, number, wide}`: `value(row)` is the sort key (null comes last), `text(row)` is what
 * is shown, a string or an element (by default the formatted value), `number` aligns to the right, and `wide` hides the
 * column on a narrow screen. A filter is an element with a method `accepts`, which returns a predicate on rows, or null
 * to accept all.
 */
class RowTable {
  static pageSize = 50;
  static stepSize = 250;

  constructor(place, { noun, rows, columns, filters = [], searchText, details }) {
    Object.assign(this, { noun, rows, columns, filters, searchText, details });
    this.size = rows.size ?? rows.length;
    this.order = { column: null, descending: false };
    this.page = 0;
    this.asked = 0; // the number of the latest request, which makes earlier ones stop
    place.replaceChildren(this.makeControls(), this.makePager(), this.makeTable());
    this.refresh();
  }

  makeControls() {
    this.search = make("input", { type: "search", placeholder: "words or parts of words" });
    this.search.addEventListener("input", () => this.refresh());
    for (const filter of this.filters) filter.addEventListener("input", () => this.refresh());
    const label = make("label", { className: "search" }, "Search", this.search);
    return make("div", { className: "controls" }, label, ...this.filters);
  }

  makePager() {
    this.status = make("output", { "aria-live": "polite" });
    const word = (text) => make("span", { className: "word" }, text);
    this.previous = make("button", { type: "button", "aria-label": "previous page" }, "←", word(" previous"));
    this.next = make("button", { type: "button", "aria-label": "next page" }, word("next "), "→");
    this.place = make("span");
    this.previous.addEventListener("click", () => this.turn(this.page - 1));
    this.next.addEventListener("click", () => this.turn(this.page + 1));
    return make("div", { className: "pager" }, this.status, this.previous, this.place, this.next);
  }

  makeTable() {
    const heads = this.columns.map((column) => this.makeHead(column));
    const toggle = make("th", { className: "toggle" }, make("span", { "aria-label": "details" }));
    this.body = make("tbody");
    this.body.addEventListener("click", (event) => this.handleClick(event));
    this.body.addEventListener("keydown", (event) => this.handleKey(event));
    const table = make("table", { className: "rows" }, make("thead", {}, make("tr", {}, toggle, ...heads)), this.body);
    const numbers = this.columns.filter((column) => column.number).length;
    table.style.setProperty("--numbers", numbers);
    table.style.setProperty("--texts", this.columns.length - numbers);
    return make("div", { className: "rows-scroll" }, table);
  }

  makeHead(column) {
    const button = make("button", { type: "button" }, addBreaks(column.title));
    column.head = make("th", { className: classes(column), "aria-sort": "none" }, button);
    button.addEventListener("click", () => this.sortBy(column));
    return column.head;
  }

  /** Cycle a column through ascending, descending and no sorting. */
  sortBy(column) {
    if (this.order.column !== column) this.order = { column, descending: false };
    else if (!this.order.descending) this.order.descending = true;
    else this.order = { column: null, descending: false };
    for (const other of this.columns) {
      const sorted = other !== this.order.column ? "none" : this.order.descending ? "descending" : "ascending";
      other.head.setAttribute("aria-sort", sorted);
    }
    this.refresh();
  }

  /** Find the rows that match, sort them, and show the first ones. */
  async refresh() {
    const asked = (this.asked += 1);
    const isOld = () => asked !== this.asked;
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = this.filters.map((filter) => filter.accepts()).filter(Boolean);
    if (words.length) {
      tests.push((row) => {
        const text = this.searchText(row).join("\n").toLowerCase();
        return words.every((word) => text.includes(word));
      });
    }
    const { column, descending } = this.order;
    this.matching = null; // positions of the rows that match; null if all do, in their own order
    if (tests.length || column) {
      const found = await this.find(tests, column, isOld);
      if (found && column) await sortSlowly(found, makeCompare(column, descending), isOld);
      if (isOld()) return;
      this.matching = found.map(({ position }) => position);
    }
    await this.turn(0);
  }

  /** Promise the positions and sort keys of the rows that pass all tests; null if something else is asked meanwhile. */
  async find(tests, column, isOld) {
    const found = [];
    const breathe = makeBreather();
    for (let from = 0; from < this.size; from += RowTable.stepSize) {
      const rows = await this.rows.slice(from, from + RowTable.stepSize);
      rows.forEach((row, index) => {
        if (tests.every((test) => test(row))) found.push({ position: from + index, key: column?.value(row) ?? null });
      });
      await breathe();
      if (isOld()) return null;
      if (from % 5000 === 0 && from) this.status.textContent = `${found.length.toLocaleString("en")} of ${from.toLocaleString("en")} …`;
    }
    return found;
  }

  get count() {
    return this.matching?.length ?? this.size;
  }

  /** Promise the matching rows from one place to another. */
  async read(from, to) {
    if (this.matching === null) return this.rows.slice(from, to);
    const rows = await Promise.all(this.matching.slice(from, to).map((position) => this.rows.slice(position, position + 1)));
    return rows.flat();
  }

  /** Show a page of the matching rows. */
  async turn(page) {
    const asked = this.asked;
    const pages = Math.max(1, Math.ceil(this.count / RowTable.pageSize));
    const number = Math.min(Math.max(page, 0), pages - 1);
    const first = number * RowTable.pageSize;
    const shown = await this.read(first, first + RowTable.pageSize);
    if (asked !== this.asked) return;
    this.page = number;
    this.shown = shown;
    this.body.replaceChildren(...this.shown.map((row, index) => this.makeRow(row, index)));
    if (!this.shown.length) {
      const width = this.columns.length + 1;
      this.body.append(make("tr", {}, make("td", { colSpan: width, className: "none" }, `no ${this.noun} matches`)));
    }
    const some = this.count === this.size ? "" : `${this.count.toLocaleString("en")} of `;
    this.status.textContent = some + formatCount(this.size, this.noun);
    this.place.textContent = `page ${(this.page + 1).toLocaleString("en")} of ${pages.toLocaleString("en")}`;
    this.previous.disabled = this.page === 0;
    this.next.disabled = this.page === pages - 1;
  }

  makeRow(row, index) {
    const button = make("button", { type: "button", "aria-expanded": "false", "aria-label": "details" }, "▸");
    const cells = this.columns.map((column) => make("td", { className: classes(column) }, this.makeCell(column, row)));
    const element = make("tr", {}, make("td", { className: "toggle" }, button), ...cells);
    element.dataset.index = index;
    return element;
  }

  makeCell(column, row) {
    if (column.number) return column.text ? column.text(row) : formatScore(column.value(row));
    const content = (column.text ?? column.value)(row);
    return make("div", { className: "clamp" }, typeof content === "string" ? visible(content.slice(0, 300)) : content);
  }

  handleClick(event) {
    const element = event.target.closest("tr[data-index]");
    const selecting = String(getSelection()).length > 0; // selecting text must not unfold the row
    if (element && (event.target.closest("button") || !selecting)) this.unfold(element);
  }

  /** Move between rows with the arrow keys. */
  handleKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches(".toggle button")) return;
    const buttons = [...this.body.querySelectorAll(".toggle button")];
    buttons[buttons.indexOf(event.target) + step]?.focus();
    event.preventDefault();
  }

  unfold(element) {
    const button = element.querySelector(".toggle button");
    const open = element.classList.toggle("open");
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "▾" : "▸";
    if (!open) return element.nextElementSibling.remove();
    const content = this.details(this.shown[Number(element.dataset.index)]);
    element.after(make("tr", { className: "details" }, make("td", { colSpan: this.columns.length + 1 }, content)));
  }
}

/** Return a function that compares found rows by their sort keys, with null last. */
function makeCompare(column, descending) {
  const sign = descending ? -1 : 1;
  const compare = column.number ? (a, b) => a - b : new Intl.Collator(undefined, { numeric: true }).compare;
  return (a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
    return sign * compare(a.key, b.key);
  };
}

/** Sort an array in place by merging, in small steps; stop if `isOld()`. Equal items keep their order. */
async function sortSlowly(items, compare, isOld) {
  const breathe = makeBreather();
  const width = 500;
  for (let start = 0; start < items.length; start += width) {
    items.splice(start, width, ...items.slice(start, start + width).sort(compare));
    await breathe();
  }
  for (let size = width; size < items.length; size *= 2) {
    const merged = [];
    for (let start = 0; start < items.length; start += 2 * size) {
      const [middle, end] = [start + size, start + 2 * size].map((place) => Math.min(place, items.length));
      let [left, right] = [start, middle];
      while (left < middle || right < end) {
        const takesLeft = right >= end || (left < middle && compare(items[left], items[right]) <= 0);
        merged.push(takesLeft ? items[left++] : items[right++]);
        if (merged.length % width === 0) {
          await breathe();
          if (isOld()) return;
        }
      }
    }
    merged.forEach((item, place) => { items[place] = item; });
  }
}

/** Return a name that a browser may break after underscores. */
function addBreaks(name) {
  return name.replaceAll("_", "_\u200b");
}

function classes(column) {
  return [column.number ? "number" : "", column.wide ? "wide" : ""].join(" ").trim();
}

/** Return a filter that selects rows with one of several values. */
function makeChoice(title, values, valueOf) {
  const select = make("select", {}, make("option", { value: "" }, "any"));
  values.forEach((value, index) => select.append(make("option", { value: String(index) }, value)));
  const filter = make("label", {}, title, select);
  filter.accepts = () => (select.value === "" ? null : (row) => valueOf(row) === values[Number(select.value)]);
  return filter;
}

/** Return a filter that selects rows whose value is exactly the text that is typed. */
function makeExact(title, valueOf) {
  const input = make("input", { type: "search", placeholder: "any" });
  const filter = make("label", {}, title, input);
  filter.input = input;
  filter.accepts = () => (input.value === "" ? null : (row) => valueOf(row) === input.value);
  return filter;
}

/** Return a filter for scores in a range; `metrics` are names, and `scoreOf(row, name)` may return null. */
function makeRange(metrics, scoreOf) {
  const select = make("select", { "aria-label": "score" }, ...metrics.map((name) => make("option", { value: name }, name)));
  const [low, high] = ["at least", "at most"].map((text) =>
    make("input", { type: "number", step: "any", placeholder: text, "aria-label": text }));
  const filter = make("label", {}, "Score", make("span", { className: "range" }, select, low, high));
  filter.accepts = () => {
    const from = low.value === "" ? -Infinity : Number(low.value);
    const to = high.value === "" ? Infinity : Number(high.value);
    if (from === -Infinity && to === Infinity) return null;
    return (row) => {
      const score = scoreOf(row, select.value) ?? null;
      return score !== null && score >= from && score <= to;
    };
  };
  return filter;
}

/** Return a heading with preformatted text below it; null if there is no text. */
function makeText(title, text) {
  if (text === null || text === undefined) return null;
  const content = text === "" ? make("p", { className: "note" }, "(empty)") : make("pre", {}, visible(text));
  return make("div", {}, make("h4", {}, title), content);
}

/** Return the fields of a question, one per line; a single field is shown without its name. */
function questionText(doc) {
  const entries = Object.entries(doc);
  return entries.length === 1 ? entries[0][1] : entries.map(([name, text]) => `${name}: ${text}`).join("\n");
}

/** Return a description list of names and values. */
function makeFacts(entries) {
  const items = entries.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, visible(String(text)))]);
  return make("dl", { className: "facts" }, ...items);
}
