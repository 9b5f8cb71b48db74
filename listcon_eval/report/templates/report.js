"use strict";
// The list of queries. All text goes in as text, never as markup.
(() => {
  const tasks = [...document.querySelectorAll("script.data-of-task")].map((node) => JSON.parse(node.textContent));
  const at = (id) => document.getElementById(id);
  const [task, first, second, order, show, search] =
    ["f-task", "f-first", "f-second", "f-order", "f-show", "f-search"].map(at);
  const list = at("list"), about = at("f-about"), more = at("more");
  const PAGE = 50;
  let found = [], shown = 0;

  function element(name, className, text) {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function option(value, text) {
    const node = element("option", "", text);
    node.value = String(value);
    return node;
  }

  const own = () => tasks[Number(task.value)];
  const compared = () => (second.value === "" ? null : Number(second.value));

  function fillRuns() {
    const systems = own().systems;
    const options = () => systems.map((system, place) => option(place, `${system.letter}: ${system.name}`));
    first.replaceChildren(...options());
    second.replaceChildren(option("", "no other run"), ...options());
    const [run, beside] = own().start;
    first.value = String(run);
    second.value = beside === undefined ? "" : String(beside);
    second.disabled = systems.length < 2;
  }

  // The passages' texts are searched too, where they are here.
  function hasWords(words, query, place) {
    const passages = own().passages[place];
    const texts = [query.id, query.text || "", ...(passages ? passages.documents.map((d) => `${d.id} ${d.text || ""}`) : [])];
    const all = texts.join("\n").toLowerCase();
    return words.every((word) => all.includes(word));
  }

  function choose() {
    const a = Number(first.value), b = compared();
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const change = (query) => (b === null ? 0 : query.ap[a] - query.ap[b]);
    found = own().queries.map((query, place) => ({ query, place, change: change(query) }));
    const wanted = {
      fell: (row) => row.change < 0,
      rose: (row) => row.change > 0,
      passages: (row) => row.place in own().passages,
    }[show.value];
    if (wanted) found = found.filter(wanted);
    if (words.length) found = found.filter((row) => hasWords(words, row.query, row.place));
    const key = {
      worst: (row) => row.query.ap[a],
      best: (row) => -row.query.ap[a],
      moved: (row) => -Math.abs(row.change),
      longest: (row) => -row.query.candidates,
      data: (row) => row.place,
    }[order.value];
    found.sort((x, y) => key(x) - key(y) || x.place - y.place);
    list.replaceChildren();
    shown = 0;
    showMore();
    describe();
  }

  function describe() {
    const data = own(), here = Object.keys(data.passages).length;
    const parts = [`${found.length} of ${data.queries.length} queries.`];
    if (here < data.queries.length)
      parts.push(`Passages are here for ${here} of them, the worst and the most moved (--queries).`);
    parts.push(`The best ${data.top} passages of a run are shown (--top).`);
    if (data.left_out) parts.push(`${data.left_out} queries are not here: ${data.measure} leaves out those without a relevant or without another candidate.`);
    if (data.cut) parts.push(`${data.cut} passages are cut to their beginning.`);
    if (data.no_texts) parts.push(`Passages have ids only: ${data.no_texts}.`);
    if (compared() === null && (order.value === "moved" || show.value === "fell" || show.value === "rose"))
      parts.push("What moved needs a second run to compare with.");
    about.textContent = parts.join(" ");
  }

  function showMore() {
    const next = found.slice(shown, shown + PAGE);
    list.append(...next.map(row));
    shown += next.length;
    more.hidden = shown >= found.length;
    more.textContent = `Show more (${found.length - shown} left)`;
  }

  function row({ query, place, change }) {
    const item = element("li"), details = element("details"), summary = element("summary");
    const a = Number(first.value), b = compared();
    summary.append(element("span", "text", query.text === null ? `Query ${query.id} (its text is not in these files)` : query.text));
    const values = element("span", "values");
    if (b !== null) {
      const sign = change > 0 ? "+" : change < 0 ? "−" : "±";
      values.append(element("span", "", `${query.ap[b].toFixed(2)} → `), element("b", "", query.ap[a].toFixed(2)), " ");
      values.append(element("span", change > 0 ? "up" : change < 0 ? "down" : "", `${sign}${Math.abs(change).toFixed(2)}`));
    } else {
      values.append(element("b", "", query.ap[a].toFixed(2)));
    }
    summary.append(values);
    summary.append(element("span", "facts", `id ${query.id}, ${query.candidates} candidates, ${query.relevant} relevant`));
    details.append(summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(rankings(query, place));
    });
    item.append(details);
    return item;
  }

  function rankings(query, place) {
    const passages = own().passages[place];
    if (!passages)
      return element("p", "note", `The passages of this query are not in this file; see them with: listcon-eval show RUN --query '${query.id}'`);
    const box = element("div", "rankings"), b = compared();
    const systems = b === null || b === Number(first.value) ? [Number(first.value)] : [b, Number(first.value)];
    for (const system of systems) box.append(ranking(passages, system));
    return box;
  }

  function ranking(passages, system) {
    const box = element("section", "ranking"), about = own().systems[system];
    box.append(element("h4", "", `${about.letter}: ${about.name}`));
    const rankText = (rank) => {
      if (rank === null) return "not retrieved";
      return rank[0] === rank[1] ? `${rank[0]}` : `${rank[0]} to ${rank[1]} (tied)`;
    };
    const ranks = passages.ranks[system].map(rankText);
    const said = ranks.length > 12 ? `${ranks.slice(0, 12).join(", ")}, ...` : ranks.join(", ");
    box.append(element("p", "note", ranks.length ? `Relevant passages at rank ${said}.` : "No relevant passage among the candidates."));
    const items = element("ol");
    passages.ranked[system].forEach(([number, score, round], place) => {
      const document_ = passages.documents[number];
      const item = element("li", document_.relevance > 0 ? "relevant" : "");
      const meta = element("span", "meta", `${place + 1}.  score ${Number(score.toPrecision(7))}${about.iterative ? `, round ${round}` : ""}, ${document_.id}`);
      if (document_.relevance > 0) meta.append(", ", element("b", "", "relevant"));
      item.append(meta);
      if (document_.text !== null) item.append(element("p", "text", document_.text));
      items.append(item);
    });
    box.append(items);
    return box;
  }

  tasks.forEach((own_, place) => task.append(option(place, own_.task)));
  if (tasks.length) {
    fillRuns();
    at("filters").hidden = false;
    at("filters").addEventListener("submit", (event) => event.preventDefault());
    task.addEventListener("change", () => { fillRuns(); choose(); });
    for (const node of [first, second, order, show]) node.addEventListener("change", choose);
    search.addEventListener("input", choose);
    more.addEventListener("click", showMore);
    choose();
  }
  // A phone's first screen should not be the contents alone
  if (window.matchMedia("(max-width: 69.99rem)").matches) document.querySelector(".toc details").open = false;
})();
