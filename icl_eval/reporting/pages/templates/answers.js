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

  /** Return the questions that both runs answered; `difference` is B minus A, and `gain` is positive if B is better. */
  function makeRows() {
    const { task, left, right } = chosen;
    const sign = task.metrics[chosen.metric].higher ? 1 : -1;
    const read = (answer) => ({
      completion: task.texts[answer[0]], prediction: task.texts[answer[1]], scores: answer.slice(2), score: answer[2 + chosen.metric],
    });
    return task.questions.flatMap((question, index) => {
      const [a, b] = [task.answers[left][index], task.answers[right][index]];
      if (!a || !b) return [];
      const row = { question, a: read(a), b: read(b) };
      const known = row.a.score !== null && row.b.score !== null;
      row.difference = known ? row.b.score - row.a.score : null;
      row.gain = known ? Math.sign(sign * row.difference) : null;
      return [row];
    });
  }

  function show() {
    const rows = makeRows();
    place.replaceChildren(makePickers(), summary, table);
    summary.replaceChildren(makeSummary(rows), ...makeNotes(rows));
    const changes = { "B is better": 1, "A is better": -1, "the same score": 0 };
    new RowTable(table, {
      noun: "question",
      rows,
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

  function makeSummary(rows) {
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
    return score && score[1] !== null ? `${formatScore(score[1])} to ${formatScore(score[2])}` : "–";
  }

  function makeNotes(rows) {
    const { task, metric } = chosen;
    const count = (gain) => rows.filter((row) => row.gain === gain).length;
    const all = task.questions.length;
    const only = all - rows.length;
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
