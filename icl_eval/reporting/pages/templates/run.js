"use strict";

/** Show the records of a run, one task at a time. */
(() => {
  const tasks = readData("tasks");
  const place = document.getElementById("rows");
  const table = make("div");
  const known = new Set([
    "example_id", "doc", "targets", "encoder", "decoder", "completion", "prediction", "metrics", "prompt_tokens",
    "completion_tokens", "finish_reason", "demonstration_ids", "demonstrations", "shots_requested", "shots_effective",
    "likelihood", "samples", "cluster", "texts",
  ]);

  function show(task) {
    const records = new BlockRows(task.blocks, ({ rows, texts }) => rows.map((record) => Object.assign(record, { texts })));
    const filters = [makeRange(task.metrics, (record, metric) => record.metrics[metric])];
    if (task.reasons.length > 1) filters.push(makeChoice("Ended by", task.reasons, (record) => record.finish_reason));
    const cluster = makeExact("Cluster", (record) => record.cluster);
    if (task.clusters.length) filters.push(cluster);
    const questions = new RowTable(table, {
      noun: "question",
      rows: records,
      columns: columnsOf(task),
      filters,
      searchText: (record) => [
        record.example_id, record.cluster ?? "", ...Object.values(record.doc), ...record.targets, record.completion, record.prediction,
        ...record.demonstration_ids.map((id) => record.texts[id]),
      ],
      details: detailsOf,
    });
    showClusters(task, (name) => {
      cluster.input.value = name;
      questions.refresh();
      table.scrollIntoView();
    });
  }

  /** List the clusters of a task, each with a button that calls `choose` with its name. */
  function showClusters(task, choose) {
    const place = document.getElementById("clusters-rows");
    if (!place) return;
    if (!task.clusters.length) return place.replaceChildren(make("p", { className: "note" }, `${task.name} names no clusters.`));
    new RowTable(place, {
      noun: "cluster",
      rows: task.clusters,
      columns: [
        { title: "cluster", value: ([name]) => name },
        { title: "questions", number: true, value: (row) => row[1], text: (row) => row[1].toLocaleString("en") },
        ...task.metrics.map((metric, index) => ({ title: metric, number: true, wide: index > 0, value: (row) => row[2 + index] })),
      ],
      searchText: ([name]) => [name],
      details: ([name]) => {
        const button = make("button", { type: "button" }, "show its questions");
        button.addEventListener("click", () => choose(name));
        return button;
      },
    });
  }

  function columnsOf(task) {
    return [
      { title: "question", value: (record) => questionText(record.doc) },
      { title: "references", wide: true, value: (record) => record.targets.join("\n") },
      { title: "prediction", value: (record) => record.prediction },
      ...task.metrics.map((metric, index) => ({
        title: metric, number: true, wide: index > 0, value: (record) => record.metrics[metric],
      })),
    ];
  }

  function detailsOf(record) {
    const promptSide = (side) => joinLines(record[side], record.texts);
    const encoder = promptSide("encoder");
    const other = Object.entries(record).filter(([name, value]) => !known.has(name) && value !== null);
    const answer = make("div", {},
      makeText("Completion", record.completion),
      record.prediction === record.completion ? null : makeText("Prediction (scored)", record.prediction),
      makeText("References", record.targets.join("\n")),
      makeFacts([
        ["id", record.example_id],
        ...(record.cluster === null ? [] : [["cluster", record.cluster]]),
        ...Object.entries(record.metrics).map(([name, score]) => [name, formatScore(score)]),
        ["demonstrations", demonstrationsOf(record)],
        ["tokens", tokensOf(record)],
        ...other.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
      ]),
    );
    if (record.samples.length) answer.append(makeSamples(record));
    if (record.likelihood) answer.append(makeLikelihood(record.likelihood));
    const prompt = make("div", {},
      makeText(encoder === null ? "Prompt" : "Prompt, encoder side", encoder === null ? promptSide("decoder") : encoder),
      encoder === null ? null : makeText("Prompt, decoder side", promptSide("decoder")),
      ...channelOf(record),
      ...Object.entries(record.doc).map(([name, text]) => makeText(`Field ${name}`, text)),
    );
    return make("div", { className: "columns" }, prompt, answer);
  }

  /** Return one side of a prompt from the numbers of its lines; null if there is no such side. */
  function joinLines(side, texts) {
    return side && side.map((line) => texts[line]).join("");
  }

  /** Return a table of all completions of the prompt, whose most frequent prediction is scored. */
  function makeSamples({ samples, texts }) {
    const head = ["sample", "prediction", "tokens", "ended by"].map((title, index) =>
      make("th", { className: index === 2 ? "number" : "" }, title));
    const rows = samples.map(([completion, prediction, tokens, reason]) => make("tr", {},
      make("td", {}, visible(texts[completion])), make("td", {}, visible(texts[prediction])),
      make("td", { className: "number" }, String(tokens)), make("td", {}, reason)));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
    return make("div", { className: "scroll" }, table);
  }

  /** Return the numbers of tokens, as far as they are known, and what ended the completion. */
  function tokensOf({ prompt_tokens: read, completion_tokens: generated, finish_reason: end }) {
    const known = [[read, "in the prompt"], [generated, "generated"]].filter(([number]) => number !== null);
    return [...known.map((part) => part.join(" ")), `ended by ${end}`].join(", ");
  }

  /** Return what is scored if it is the question: the prompt of the first reference, and the question that continues it. */
  function channelOf({ likelihood, texts }) {
    const { encoder, decoder, question } = (likelihood && likelihood.channel) || {};
    if (question === undefined) return [];
    return [
      encoder && makeText("Prompt of the first reference, encoder side", joinLines(encoder, texts)),
      decoder && makeText("Prompt of the first reference", joinLines(decoder, texts)),
      makeText("Question (scored)", question),
    ];
  }

  /** Return a table of the answers with their log-likelihoods, or with those of the question after them. */
  function makeLikelihood({ references, choices, channel }) {
    const kinds = [["calibrated", "calibrated"], ["domain", "after domain texts"], ["pmi", "after the premise"]]
      .filter(([name]) => choices.some((answer) => typeof answer[name] === "number"));
    const titles = ["answer", channel ? "log-likelihood of the question" : "log-likelihood", "tokens"];
    const head = [...titles, ...kinds.map(([, title]) => title)].map((title, index) =>
      make("th", { className: index ? "number" : "" }, title));
    const row = (kind) => (answer) => make("tr", {},
      make("td", {}, make("span", { className: "quiet" }, `${kind} `), visible(answer.text)),
      ...[
        formatScore(answer.logprob), answer.tokens === null ? "–" : String(answer.tokens),
        ...kinds.map(([name]) => formatScore(answer[name])),
      ].map((text) => make("td", { className: "number" }, text)));
    const body = make("tbody", {}, ...references.map(row("reference")), ...choices.map(row("choice")));
    return make("div", { className: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...head)), body));
  }

  /** Return one line per demonstration: its id, the answer shown, and its similarity to the question. */
  function demonstrationsOf(record) {
    const { texts } = record;
    const shown = record.demonstrations.map(([id, target, similarity]) =>
      `${texts[id]}: ${target === null ? "no answer" : texts[target]}${similarity === null ? "" : ` (similarity ${formatScore(similarity)})`}`);
    const all = shown.length ? shown : record.demonstration_ids.map((id) => texts[id]);
    const fitted = `${record.shots_effective} of ${record.shots_requested} fit`;
    if (record.shots_effective !== record.shots_requested) all.push(fitted);
    return all.join("\n") || "none";
  }

  const select = make("select", {}, ...tasks.map((task, index) => make("option", { value: String(index) }, task.name)));
  select.addEventListener("input", () => show(tasks[Number(select.value)]));
  const chooser = make("div", { className: "controls" }, make("label", {}, "Task", select));
  place.replaceChildren(...(tasks.length > 1 ? [chooser] : []), table);
  show(tasks[0]);
})();
