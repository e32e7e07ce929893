"use strict";

/** Show two of several runs side by side: how they differ, and on which questions. */
(() => {
  const { runs, tasks } = readData("answers-data");
  const place = document.getElementById("answers");
  const chosen = { task: tasks[0], metric: 0, left: 0, right: Math.min(1, runs.length - 1) };
  const summary = make("div");
  const table = make("div");

  function makeSelect(label, names, value, choose) {
    const select = make("select", {}, ...names.map((name, index) => make("option", { value: String(index) }, visible(name))));
    select.value = String(value);
    select.addEventListener("input", () => { choose(Number(select.value)); show(); });
    return make("label", { className: "run" }, label, select);
  }

  function makePickers() {
    const metrics = chosen.task.metrics.map((metric) => metric.name);
    return make("div", { className: "controls" },
      tasks.length > 1 ? makeSelect("Task", tasks.map((task) => task.name), tasks.indexOf(chosen.task), (index) => {
        Object.assign(chosen, { task: tasks[index], metric: 0 });
      }) : null,
      makeSelect("A", runs, chosen.left, (index) => { chosen.left = index; }),
      makeSelect("B", runs, chosen.right, (index) => { chosen.right = index; }),
      metrics.length > 1 ? makeSelect("Difference in", metrics, chosen.metric, (index) => { chosen.metric = index; }) : null,
    );
  }

  /** Return a source of rows for `RowTable`: the questions at some positions, with the answers of both runs. */
  function makeSource(positions, values) {
    const { task, left, right, metric } = chosen;
    const questions = (task.asked ??= new BlockRows(task.questions, ({ rows }) => rows));
    const [a, b] = [left, right].map((run) => new BlockRows(task.answers[run], ({ rows, texts }) =>
      rows.map((answer) => answer && { completion: texts[answer[0]], prediction: texts[answer[1]] })));
    const makeSide = (answer, { scores }, position) =>
      ({ ...answer, scores: scores.map((all) => all[position]), score: scores[metric][position] });

    async function slice(from, to) {
      const wanted = positions.slice(from, to);
      if (!wanted.length) return [];
      const ends = [wanted[0], wanted.at(-1) + 1]; // positions ascend
      const [asked, ofA, ofB] = await Promise.all([questions, a, b].map((list) => list.slice(...ends)));
      return wanted.map((position) => {
        const index = position - ends[0];
        const row = {
          question: asked[index], a: makeSide(ofA[index], values[0], position), b: makeSide(ofB[index], values[1], position),
        };
        return Object.assign(row, compareScores(row.a.score, row.b.score));
      });
    }

    return { size: positions.length, slice };
  }

  /** Return B minus A as `difference`, and as `gain` whether B is better (1), worse (-1) or the same (0). */
  function compareScores(a, b) {
    if (a === null || b === null) return { difference: null, gain: null };
    const sign = chosen.task.metrics[chosen.metric].higher ? 1 : -1;
    return { difference: b - a, gain: Math.sign(sign * (b - a)) };
  }

  /** Promise the positions of the questions that both runs answered, and the scores of both at all positions. */
  async function readPair() {
    const { task, left, right } = chosen;
    const values = await Promise.all([left, right].map((run) => readBlock(task.values[run])));
    // a run that was read early does not know the questions that only later ones have
    const size = Math.min(...[left, right].map((run) => countRows(task.answers[run])));
    const missing = new Set(values.flatMap((each) => each.missing));
    return { positions: [...Array(size).keys()].filter((each) => !missing.has(each)), values };
  }

  /** Return the number of rows in some elements. */
  function countRows(blocks) {
    return blocks.reduce((sum, [, count]) => sum + count, 0);
  }

  async function show() {
    const asked = (chosen.asked = (chosen.asked ?? 0) + 1);
    const { positions, values } = await readPair();
    if (asked !== chosen.asked) return;
    place.replaceChildren(makePickers(), summary, table);
    summary.replaceChildren(makeSummary(), ...makeNotes(positions, values));
    const changes = { "B is better": 1, "A is better": -1, "the same score": 0 };
    new RowTable(table, {
      noun: "question",
      rows: makeSource(positions, values),
      columns: [
        { title: "question", value: (row) => questionText(row.question.doc) },
        { title: "references", wide: true, value: (row) => row.question.targets.join("\n") },
        { title: "A predicts", value: (row) => row.a.prediction },
        { title: "B predicts", value: (row) => row.b.prediction },
        { title: "A", number: true, wide: true, value: (row) => row.a.score },
        { title: "B", number: true, wide: true, value: (row) => row.b.score },
        { title: "B − A", number: true, value: (row) => row.difference, text: makeDifference },
      ],
      filters: [
        makeChoice("Score", Object.keys(changes), (row) => Object.keys(changes).find((name) => changes[name] === row.gain)),
        makeChoice("Prediction", ["differs", "is the same"], (row) =>
          row.a.prediction === row.b.prediction ? "is the same" : "differs"),
      ],
      searchText: ({ question, a, b }) => [
        question.id, ...Object.values(question.doc), ...question.targets, a.completion, b.completion,
      ],
      details: makeDetails,
    });
  }

  function makeDifference(row) {
    if (row.difference === null) return "–";
    const name = row.gain > 0 ? "better" : row.gain < 0 ? "worse" : "quiet";
    return make("span", { className: name }, formatSigned(row.difference));
  }

  function formatSigned(number) {
    return (number > 0 ? "+" : number < 0 ? "−" : "") + formatScore(Math.abs(number));
  }

  function makeSummary() {
    const { task, left, right } = chosen;
    const head = ["metric", "A", "95 % interval", "B", "95 % interval", "B − A"].map((title, index) =>
      make("th", { className: index ? "number" : "" }, title));
    const body = task.metrics.map((metric, index) => {
      const [a, b] = [task.scores[left][index], task.scores[right][index]];
      const between = a && b ? formatSigned(b[0] - a[0]) : "–";
      const cells = [a, b].flatMap((score) => [score ? formatScore(score[0]) : "–", makeInterval(score)]);
      const numbers = [...cells, between].map((text) => make("td", { className: "number" }, text));
      return make("tr", {}, make("td", {}, metric.name + (metric.higher ? "" : " ↓")), ...numbers);
    });
    return make("div", { className: "scroll" },
      make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)));
  }

  function makeInterval(score) {
    return score && score[1] !== null ? formatInterval(score) : "–";
  }

  function makeNotes(positions, values) {
    const { task, metric } = chosen;
    const counts = new Map();
    for (const position of positions) {
      const { gain } = compareScores(...values.map(({ scores }) => scores[metric][position]));
      counts.set(gain, (counts.get(gain) ?? 0) + 1);
    }
    const count = (gain) => counts.get(gain) ?? 0;
    const all = countRows(task.questions);
    const only = all - positions.length;
    const notes = [
      `By ${task.metrics[metric].name}, B is better on ${formatCount(count(1), "question")} and A on ${formatCount(count(-1), "question")}; the score is the same on ${formatCount(count(0), "question")}.`,
    ];
    if (only) notes.push(`${only.toLocaleString("en")} of ${formatCount(all, "question")} are left out, because they are missing from one of the runs or differ between them.`);
    if (task.left_out) notes.push(`This page contains the first ${formatCount(all, "question")}; ${task.left_out.toLocaleString("en")} more are in the folders of the runs.`);
    return notes.map((note) => make("p", { className: "note" }, note));
  }

  function makeDetails({ question, a, b }) {
    const side = (name, run, { completion, prediction, scores }) => make("div", {},
      make("h4", {}, `${name}: ${visible(runs[run])}`),
      makeText("Completion", completion),
      prediction === completion ? null : makeText("Prediction (scored)", prediction),
      makeFacts(chosen.task.metrics.map((metric, index) => [metric.name, formatScore(scores[index])])));
    return make("div", {},
      ...Object.entries(question.doc).map(([name, text]) => makeText(`Field ${visible(name)}`, text)),
      makeText("References", question.targets.join("\n")),
      make("div", { className: "columns" }, side("A", chosen.left, a), side("B", chosen.right, b)),
      makeFacts([["id", question.id]]));
  }

  if (tasks.length) show();
})();
