"use strict";

/** Return what a data element of this page holds. */
function readData(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/**
 * Return a new element. Its properties are set as they are, `dataset` and `aria-…` included; children are elements, or
 * text, which stays text whatever it looks like.
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

/** Return text with its control characters (NUL, escape, …) as the pictures that Unicode has for them. */
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, (character) =>
    character === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + character.charCodeAt(0)));
}

/** Return a number with as many digits as a score deserves, as `numbers.short` does; a dash for one that is missing. */
function formatted(number) {
  if (number === null || number === undefined) return "–";
  const size = Math.abs(number);
  const digits = size <= 2 ? 3 : 1;
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false, roundingMode: "halfEven" };
  const text = size < 1e6 ? number.toLocaleString("en", options) : number.toExponential(2).replace(/e\+(\d)$/, "e+0$1");
  return text.replace("-", "−");
}

/** Return a count with its noun in the right form. */
function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
