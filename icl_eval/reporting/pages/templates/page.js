"use strict";

/** Return the value that a data element of this page contains. */
function readData(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** Return the value that an element of this page contains as JSON, which may be compressed. */
async function readBlock(id) {
  const element = document.getElementById(id);
  if (element.type === "application/json") return JSON.parse(element.textContent);
  if (!window.DecompressionStream) throw new Error("it is compressed, and this browser is too old to decompress it");
  const packed = atob(element.textContent);
  const bytes = new Uint8Array(packed.length);
  for (let index = 0; index < packed.length; index += 1) bytes[index] = packed.charCodeAt(index);
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(unpacked).text());
}

/**
 * Rows in several elements of this page, each of which is read when a row of it is wanted. Only some are
 * kept, so that memory is bounded however many there are.
 */
class BlockRows {
  static maxKept = 800; // elements of about 250,000 characters

  /** `blocks` are pairs of an element's id and its number of rows; `unpack(block)` returns the rows of an element. */
  constructor(blocks, unpack) {
    let start = 0;
    this.blocks = blocks.map(([id, count]) => ({ id, start, end: (start += count) }));
    this.size = start;
    this.unpack = unpack;
    this.kept = new Map(); // from ids to promises of rows
    this.latest = {};
  }

  /** Promise the rows from one position to another, as far as there are any. */
  async slice(from, to) {
    const parts = [];
    for (const block of this.blocks) {
      if (block.end <= from || block.start >= to) continue;
      const rows = await this.read(block.id);
      parts.push(rows.slice(Math.max(0, from - block.start), to - block.start));
    }
    return parts.flat();
  }

  /** Promise the rows of an element. */
  read(id) {
    const known = this.kept.get(id) ?? (this.latest.id === id ? this.latest.rows : null);
    if (known) return known;
    const rows = readBlock(id).then(this.unpack);
    // The first ones stay, since a search reads all in order: dropping the oldest would drop each before its next use.
    if (this.kept.size < BlockRows.maxKept) this.kept.set(id, rows);
    this.latest = { id, rows };
    return rows;
  }
}

/** Return a function that lets the page react if it has been busy for a while: call it often, and wait for it. */
function makeBreather(milliseconds = 20) {
  let start = performance.now();
  return async () => {
    if (performance.now() - start < milliseconds) return;
    await new Promise((resolve) => setTimeout(resolve));
    start = performance.now();
  };
}

/**
 * Return a new element. Names with a hyphen (`aria-…`), `for` and `role` are set as attributes, others as properties.
 * Children are elements or strings; a string is inserted as text and never parsed as HTML.
 */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "for" || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return a string with its control characters (NUL, escape, …) replaced by Unicode control pictures. */
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, (character) =>
    character === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + character.charCodeAt(0)));
}

/** Return a score rounded for display, as `icl_eval.formatting.short` does; a dash if it is missing. */
function formatScore(number) {
  if (number === null || number === undefined) return "–";
  const size = Math.abs(number);
  const digits = size <= 2 ? 3 : 1;
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false, roundingMode: "halfEven" };
  const text = size < 1e6 ? number.toLocaleString("en", options) : number.toExponential(2).replace(/e\+(\d)$/, "e+0$1");
  return text.replace("-", "−");
}

/** Return the ends of the interval of a score `[score, low, high]`. */
function formatInterval([, low, high]) {
  return `${formatScore(low)} to ${formatScore(high)}`;
}

/** Return a count with its noun in the singular or plural. */
function formatCount(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

// An element that cannot be read must not look like one without rows.
addEventListener("unhandledrejection", ({ reason }) => {
  const sentence = `A part of this page cannot be shown: ${reason.message}.`;
  document.querySelector("main").prepend(make("p", { className: "warning" }, sentence));
});
