"use strict";

/** List the cells of a sweep, with a way to the page of each. */
(() => {
  const { columns, cells } = readData("cells-data");
  const values = {};
  for (const { options } of cells) {
    for (const [name, value] of Object.entries(options)) (values[name] ??= new Set()).add(value);
  }
  const filters = Object.entries(values).filter(([, known]) => known.size <= 50).map(([name, known]) =>
    makeChoice(name, [...known], (cell) => cell.options[name]));
  const titles = columns.map((column) => column.title);
  if (titles.length) filters.push(makeRange(titles, (cell, title) => cell.scores[titles.indexOf(title)]?.[0]));
  const hasFailures = cells.some((cell) => cell.error !== null);
  if (hasFailures) {
    filters.push(makeChoice("Result", ["finished", "failed"], (cell) => (cell.error === null ? "finished" : "failed")));
  }

  /** Return the address of a cell's page beside this one. */
  function addressOf(cell) {
    return `${encodeURIComponent(cell.folder)}/report.html`;
  }

  function makeName(cell) {
    return cell.error === null ? make("a", { href: addressOf(cell) }, visible(cell.label)) : visible(cell.label);
  }

  function makeScore(score) {
    if (!score) return "–";
    if (score[1] === null) return formatScore(score[0]);
    return make("span", {}, formatScore(score[0]),
      make("span", { className: "ends" }, formatInterval(score)));
  }

  function detailsOf(cell) {
    return make("div", {},
      cell.error === null ? null : make("p", {}, make("span", { className: "error" }, `failed: ${visible(cell.error)}`)),
      makeFacts([["folder", cell.folder], ["overrides", cell.overrides.join("\n")]]));
  }

  new RowTable(document.getElementById("cells-rows"), {
    noun: "cell",
    rows: cells,
    columns: [
      { title: "cell", value: (cell) => cell.label, text: makeName },
      ...(hasFailures ? [{ title: "error", wide: true, value: (cell) => cell.error ?? "" }] : []),
      ...columns.map((column, index) => ({
        title: column.title + (column.higher ? "" : " ↓"), number: true, wide: index > 0,
        value: (cell) => cell.scores[index]?.[0], text: (cell) => makeScore(cell.scores[index]),
      })),
    ],
    filters,
    searchText: (cell) => [cell.label, cell.folder, ...cell.overrides, cell.error ?? ""],
    details: detailsOf,
  });
})();
