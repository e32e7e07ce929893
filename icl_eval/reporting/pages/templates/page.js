"use strict";

/** Return the value that a data element of this page contains. */
function readData(id) {
  return JSON.parse(document.getElementById(id).textContent);
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

/** Return a count with its noun in the singular or plural. */
function formatCount(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
