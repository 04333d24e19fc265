// A run's tables. The rows are in the kernel: every change is a message to Python, which answers with what is shown.
// Texts are set as text, never as HTML.

const QUIET = 250; // ms after the last key until what was typed is looked for

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function render({ model, el }) {
  const root = make("section", { class: "ccb", "aria-label": "A run's tables", "data-lm-suppress-shortcuts": "true" });
  const head = make("div", { class: "ccb-bar" }), sieve = make("div", { class: "ccb-bar" });
  const told = make("p", { class: "ccb-told", role: "status" }), table = make("table", { role: "grid" });
  const pager = make("div", { class: "ccb-bar" }), reading = make("div", { class: "ccb-read", tabindex: "0", "aria-live": "polite" });
  root.append(head, sieve, told, make("div", { class: "ccb-body" }, make("div", { class: "ccb-scroll" }, table), reading), pager);
  el.append(root);
  let typing = null, drawn = "";

  const now = () => model.get("state");
  function ask(change) {
    const { filters, search, sort, down, page, read } = now();
    model.send({ filters, search, sort, down, page, row: read ? read.number : null, ...change });
  }
  const first = (change) => ask({ page: 0, row: null, ...change });
  function choices(label, value, options, changed) {
    const select = make("select", { "aria-label": label, onchange: (event) => changed(event.target.value) });
    for (const [key, words] of options) select.append(make("option", { value: key, selected: key === value }, words));
    return make("label", {}, `${label} `, select);
  }

  function draw_bars(state) {
    head.replaceChildren(choices("run", state.run, state.runs.map((name) => [name, name]), (run) => model.send({ run })),
      ...state.shelves.map((name) => make("button", { "aria-pressed": String(name === state.shelf),
        onclick: () => model.send({ shelf: name }) }, name)));
    const search = make("input", { type: "search", "aria-label": "search", placeholder: "search all texts", value: state.search,
      oninput: (event) => { clearTimeout(typing); typing = setTimeout(() => first({ search: event.target.value }), QUIET); } });
    sieve.replaceChildren(...state.facets.map(([name, values]) => choices(name, state.filters[name] ?? "",
      [["", "all"], ...values.map(([value, count]) => [value, `${value} (${count.toLocaleString("en")})`])], (value) => {
        const filters = { ...state.filters };
        if (value) filters[name] = value; else delete filters[name];
        first({ filters });
      })), search);
  }

  function draw_table(state) {
    const sorted = (name) => (state.sort !== name ? "none" : state.down ? "descending" : "ascending");
    const heads = state.columns.map((name) => make("th", { "aria-sort": sorted(name), scope: "col" }, make("button", {
      onclick: () => first({ sort: name, down: state.sort === name ? !state.down : true }) },
      name + (state.sort === name ? (state.down ? " \u25bc" : " \u25b2") : ""))));
    const body = state.rows.map(([place, ...cells]) => make("tr", { tabindex: "0", "data-row": place,
      "aria-selected": String(state.read?.number === place), onclick: () => ask({ row: place, uncovered: false }) },
      ...cells.map((cell) => make("td", { dir: "auto" }, cell))));
    const focused = table.contains(document.activeElement) ? document.activeElement.closest("tr")?.dataset.row : null;
    table.replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
    if (focused != null) table.querySelector(`tr[data-row="${focused}"]`)?.focus({ preventScroll: true });
  }

  function draw_read(state) {
    const { read } = state;
    if (!read) return reading.replaceChildren(make("p", {}, "Choose a row to read it: click it, or press Enter on it."));
    const facts = make("p", { class: "ccb-facts" }, read.facts);
    if (read.covered) return reading.replaceChildren(facts,
      make("p", {}, `This text is covered (${read.covered}): some were written to elicit harm.`),
      make("button", { onclick: () => ask({ uncovered: true }) }, "Show the text"));
    reading.replaceChildren(facts, make("div", { class: "ccb-texts" }, ...read.texts.map(([name, text]) =>
      make("div", {}, make("h4", {}, name),
        ...text.split("\n").map((line) => make("p", { class: "ccb-text", dir: "auto" }, line))))));
    reading.scrollTop = 0;
  }

  function draw_pager(state) {
    const go = (page) => ask({ page, row: null });
    pager.replaceChildren(
      make("button", { disabled: state.page === 0, onclick: () => go(state.page - 1) }, "Previous"),
      make("button", { disabled: state.page + 1 >= state.pages, onclick: () => go(state.page + 1) }, "Next"),
      make("span", { "data-name": "count" }, `${state.found.toLocaleString("en")} of ${state.total.toLocaleString("en")} ${state.shelf}`
        + ` \u00b7 page ${state.page + 1} of ${state.pages}`));
  }

  function draw() {
    const state = now(), bars = JSON.stringify([state.run, state.runs, state.shelf, state.filters]);
    if (bars !== drawn) { draw_bars(state); drawn = bars; }
    told.textContent = state.problem;
    root.dataset.shelf = state.shelf;
    draw_table(state); draw_read(state); draw_pager(state);
  }

  root.addEventListener("keydown", (event) => {
    const row = event.target.closest?.("tr[data-row]");
    if (row && event.key === "Enter") ask({ row: Number(row.dataset.row), uncovered: false });
    const next = row && { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
    if (next) { next.focus(); event.preventDefault(); }
    event.stopPropagation();
  });
  for (const name of ["keyup", "keypress"]) root.addEventListener(name, (event) => event.stopPropagation());
  model.on("change:state", draw);
  draw();
  return () => { clearTimeout(typing); model.off("change:state", draw); };
}

export default { render };
