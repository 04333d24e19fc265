// The page an expert rates answers on: from a file or in a notebook. Texts are set as text, never as HTML; nothing is
// asked of any server. `host` keeps what was said: the browser's storage, or the notebook's folder.

const IDLE = 120000; // ms without a sign of the rater that do not count as looking
const GRADES = [1, 2, 3, 4, 5];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

function checksum(text) { // FNV-1a, 32 bits, of UTF-8: finds a line that was changed by accident, and guards nothing
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}

function paragraphs(text) {
  return text.split("\n").map((line) => make("p", { class: "cce-text", dir: "auto" }, line || "\u00a0"));
}

function blocks(parts) { // [kind, text]: headings, paragraphs and items of lists
  const box = make("div");
  for (const [kind, text] of parts) {
    const list = kind === "ol" || kind === "ul";
    if (list && box.lastChild?.localName !== kind) box.append(make(kind));
    (list ? box.lastChild : box).append(make(list ? "li" : kind, { dir: "auto" }, text));
  }
  return box;
}

function later(one, two) { // what was said of an item in two places: by each question what was said last
  if (!one || !two) return one ?? two;
  const order = one.at === two.at ? JSON.stringify(one) < JSON.stringify(two) : one.at < two.at;
  const [old, young] = order ? [one, two] : [two, one];
  return { ...old, ...young, ratings: { ...old.ratings, ...young.ratings } };
}

function merged(mine, other) { // of two windows, or of a file and a window; the same whichever is which
  if (!other) return mine;
  const first = mine.agreed && !(other.agreed && other.agreed < mine.agreed) ? mine : other;
  const both = { ...other, ...mine, agreed: first.agreed, session: first.session || mine.session };
  for (const kind of ["practice", "items"]) {
    both[kind] = { ...other[kind] };
    for (const [id, said] of Object.entries(mine[kind])) both[kind][id] = later(said, both[kind][id]);
  }
  return both;
}

function together(state, host) { // what was said here and what is kept; written back where another window kept less
  const kept = host.load(), both = merged(state, kept);
  const there = (kind, id) => JSON.stringify(kept?.[kind]?.[id]) === JSON.stringify(both[kind][id]);
  const lost = ["practice", "items"].some((kind) => Object.keys(both[kind]).some((id) => !there(kind, id)));
  if (lost) host.keep(both);
  return both;
}

function exported(data, state) { // a line a rating, each with its sum
  const line = (row) => {
    const text = JSON.stringify(row).slice(0, -1);
    return `${text},"check":"${checksum(`${data.digest}\n${data.rater}\n${text}`)}"}`;
  };
  const rows = (kind) => Object.entries(state[kind]).map(([item, said]) => ({ kind: kind === "items" ? "rating" : "practice", item, ...said }));
  const lines = [...rows("practice"), ...rows("items")];
  return [{ kind: "header", format: 1, study: data.study, digest: data.digest, rater: data.rater, session: state.session,
    agreed: state.agreed, exported: new Date().toISOString(), lines: lines.length }, ...lines].map(line).join("\n") + "\n";
}

function row_of(data, line) { // a line of a saved file; null where it is not as it was saved
  let row = null;
  try { row = JSON.parse(line); } catch { return null; }
  if (row?.kind === "header" && (row.digest !== data.digest || row.rater !== data.rater)) throw new Error("it is of another study or rater");
  const whole = /^(.*),"check":"([0-9a-f]{8})"\}$/s.exec(line);
  return whole && checksum(`${data.digest}\n${data.rater}\n${whole[1]}`) === whole[2] ? row : null;
}

function imported(data, text) { // a file that was saved before; what is not this rater's, or was changed, is left out
  const state = { agreed: "", session: "", practice: {}, items: {} };
  const rows = text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => row_of(data, line));
  for (const { kind, item, check, ...said } of rows.filter(Boolean)) {
    if (kind === "header") Object.assign(state, { agreed: said.agreed, session: said.session });
    else state[kind === "practice" ? "practice" : "items"][item] = said;
  }
  if (!rows.some(Boolean)) throw new Error("no line of it is as this study saved it");
  return { state, lost: rows.filter((row) => !row).length };
}

function experts(root, data, host) {
  const known = { practice: data.practice, items: data.items };
  let state = { agreed: "", session: checksum(String(Math.random()) + performance.now()), practice: {}, items: {} };
  let stage = "start", place = 0, active = 0, open = new Set(), looked = 0, sign = performance.now(), tick = sign, told = "", waiting = "";

  root.className = "cce";
  root.tabIndex = -1;
  if (data.notebook) root.dataset.lmSuppressShortcuts = "true";
  const said = (kind, id) => state[kind][id] ?? { ratings: {}, note: "", seconds: 0, changes: 0, at: "" };
  const whole = (kind, id) => data.questions.every((one) => one.id in said(kind, id).ratings);
  const done = (kind) => known[kind].filter((one) => whole(kind, one.id)).length;
  const here = () => known[stage]?.[place];
  const covered = () => Boolean(here()?.hazard) && !open.has(here().id) && !said(stage, here().id).uncovered;

  function load() { state = together(state, host); }

  function keep() { state = merged(state, host.load()); told = host.keep(state) ? "" : "This browser keeps nothing: save your file before you close this page."; }

  setInterval(() => {
    const now = performance.now();
    if (document.visibilityState === "visible" && now - sign < IDLE) looked += (now - tick) / 1000;
    tick = now;
  }, 500);

  function change(more) { // of the item that is shown, in whichever window something was said of it before
    load();
    const before = said(stage, here().id);
    state[stage][here().id] = { ...before, ...more, seconds: Math.round(10 * (before.seconds + looked)) / 10,
      changes: before.changes + (more.ratings ? 1 : 0), at: new Date().toISOString() };
    looked = 0;
    keep();
  }

  function rate(number, grade) {
    if (!here() || covered()) return;
    active = number;
    change({ ratings: { ...said(stage, here().id).ratings, [data.questions[number].id]: grade || null } });
    const field = root.querySelector(`[name="q${number}"][value="${grade}"]`);
    if (field) field.checked = true;
    if (active < data.questions.length - 1) active += 1;
    mark(); head();
  }

  function go(kind, number) {
    stage = kind; place = number; active = 0; looked = 0; waiting = "";
    draw();
    root.focus({ preventScroll: true });
  }

  function next() {
    if (!here()) return;
    if (stage === "practice" && whole(stage, here().id) && waiting !== here().id) { waiting = here().id; return draw(); }
    const left = known[stage].findIndex((one, i) => i > place && !whole(stage, one.id));
    if (left >= 0) return go(stage, left);
    if (stage === "practice") return go("items", Math.max(0, known.items.findIndex((one) => !whole("items", one.id))));
    const before = known.items.findIndex((one) => !whole("items", one.id));
    return before >= 0 && before !== place ? go("items", before) : go("end", 0);
  }

  function back() { if (here() && place > 0) go(stage, place - 1); else if (stage === "items" && known.practice.length) go("practice", known.practice.length - 1); }

  function begin() {
    load();
    if (!state.agreed) { state.agreed = new Date().toISOString(); keep(); }
    const practice = known.practice.findIndex((one) => !whole("practice", one.id));
    const left = known.items.findIndex((one) => !whole("items", one.id));
    if (practice >= 0) go("practice", practice); else go(left >= 0 ? "items" : "end", Math.max(0, left));
  }

  function save() {
    load();
    const name = `${data.study}-${data.rater}-${new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-")}.jsonl`;
    told = host.give(exported(data, state), name);
    head();
  }

  async function take(file) {
    try {
      const { state: saved, lost } = imported(data, await file.text());
      state = merged(state, saved);
      keep();
      told = `${file.name} was read; go on where it stopped.` + (lost ? ` ${lost} of its lines were damaged or changed, and left out.` : "");
    }
    catch (error) { told = `${file.name} was not read: ${error.message}. Nothing here has changed.`; }
    draw();
  }

  function uncover() { if (here()?.hazard) { open.add(here().id); change({ uncovered: true }); draw(); root.focus({ preventScroll: true }); } }

  function leave_out() { // a covered text: nothing can be said of it
    if (!covered()) return;
    change({ ratings: Object.fromEntries(data.questions.map((one) => [one.id, null])) });
    next();
  }

  // drawing

  function button(key, label, act, more = {}) {
    return make("button", { type: "button", onclick: act, "aria-keyshortcuts": key, ...more }, make("kbd", { "aria-hidden": "true" }, key), label);
  }

  function mark() {
    root.querySelectorAll("fieldset").forEach((field, i) => field.toggleAttribute("data-active", i === active));
    root.querySelectorAll("fieldset")[active]?.scrollIntoView({ block: "nearest" });
  }

  function head() {
    const total = known.items.length, count = done("items");
    root.querySelector("[data-name=count]").textContent = `${count} of ${total} rated`;
    const meter = root.querySelector("progress");
    meter.max = total; meter.value = count;
    root.querySelector("[data-name=place]").textContent = { start: "Welcome", end: "The end" }[stage]
      ?? `${stage === "practice" ? "practice" : "answer"} ${place + 1} of ${known[stage].length}`;
    root.querySelector("[data-name=told]").textContent = told;
  }

  function asked(question, number) {
    const id = `q${number}`, value = said(stage, here().id).ratings[question.id];
    const choice = (grade, label) => make("label", {}, make("input", { type: "radio", name: id, value: grade,
      checked: (value ?? (question.id in said(stage, here().id).ratings ? 0 : -1)) === grade, onchange: () => rate(number, grade) }), label);
    const anchor = (grade, texts) => make("div", { class: "cce-anchor" }, make("b", {}, `${grade}`), make("ul", {}, texts.map((text) => make("li", { dir: "auto" }, text))));
    return make("fieldset", { onfocusin: () => { active = number; mark(); } }, make("legend", { dir: "auto" }, question.question),
      make("div", { class: "cce-grades" }, GRADES.map((grade) => choice(grade, String(grade))), choice(0, "cannot say")),
      anchor(1, question.low), anchor(5, question.high));
  }

  function feedback(one) {
    if (stage !== "practice" || waiting !== one.id) return null;
    const given = said(stage, one.id).ratings;
    const rows = data.questions.filter((question) => one.expected[question.id]).map((question) => {
      const [low, high] = one.expected[question.id], grade = given[question.id];
      const meant = low === high ? `${low}` : `${low} or ${high}`;
      return make("li", {}, `${question.question} You: ${grade ?? "cannot say"}. Meant as: ${meant}${grade >= low && grade <= high ? " ✓" : ""}`);
    });
    return make("aside", { class: "cce-feedback", role: "status" }, make("h3", {}, "How it was meant"), make("p", { dir: "auto" }, one.feedback), make("ul", {}, rows));
  }

  function rating() {
    const one = here(), note = make("textarea", { "aria-label": "note", rows: "2", placeholder: "a note, if you like", oninput: () => change({ note: note.value }) });
    note.value = said(stage, one.id).note;
    const text = covered()
      ? [make("p", { class: "cce-cover" }, `Covered: this question is about a distressing matter (${one.hazard}). You need not read it.`),
        button("x", "Show it", uncover), " ", button("o", "Leave it out", leave_out)]
      : [make("h2", {}, "Question"), ...paragraphs(one.question), make("h2", {}, "Answer"), ...paragraphs(one.answer)];
    return [make("div", { class: "cce-body" },
      make("section", { class: "cce-read", tabindex: "0", "aria-label": "question and answer" }, ...text),
      make("section", { class: "cce-rate", "aria-label": "ratings" }, feedback(one), ...(covered() ? [] : data.questions.map(asked)), covered() ? null : note)),
    make("div", { class: "cce-bar" }, button("p", "Back", back), button("n", "Next", next, { class: "cce-main" }),
      make("span", { class: "cce-gap" }), make("span", { class: "cce-keys" }, "1–5 rate · 0 cannot say · ↑ ↓ question"),
      button("i", "Instructions", () => go("start", 0)), button("s", "Save file", save))];
  }

  function start() {
    const file = make("input", { type: "file", accept: ".jsonl", hidden: true, onchange: () => file.files[0] && take(file.files[0]) });
    return [make("div", { class: "cce-page" }, blocks(data.instructions), blocks(data.consent)),
      make("div", { class: "cce-bar" }, button("n", state.agreed ? "Go on" : "I agree, and begin", begin, { class: "cce-main" }),
        make("span", { class: "cce-gap" }), file, button("f", "Go on from a saved file", () => file.click()))];
  }

  function end() {
    const left = known.items.length - done("items");
    return [make("div", { class: "cce-page" }, make("h2", {}, left ? `${left} answers are open` : "All answers are rated"),
      make("p", {}, "Save your file and send it to whoever gave you this folder. You can still go back and change what you said; then save it again."),
      ...(left ? [make("p", {}, "What is open may stay open.")] : [])),
    make("div", { class: "cce-bar" }, button("p", "Back to the answers", () => go("items", 0)), button("s", "Save file", save, { class: "cce-main" }))];
  }

  function draw() {
    root.replaceChildren(make("header", { class: "cce-head" }, make("strong", {}, `${data.study} · ${data.rater}`),
      make("span", { "data-name": "place" }), make("progress", { "aria-label": "rated" }), make("span", { "data-name": "count" }),
      make("span", { "data-name": "told", role: "status" })), ...(stage === "start" ? start() : stage === "end" ? end() : rating()));
    head(); mark();
    root.querySelector(".cce-feedback")?.scrollIntoView({ block: "nearest" });
  }

  const KEYS = { n: () => (stage === "start" ? begin() : next()), Enter: () => (stage === "start" ? null : next()), p: () => (stage === "end" ? go("items", 0) : back()),
    s: save, x: uncover, o: leave_out, i: () => go("start", 0), m: () => root.querySelector("textarea")?.focus(),
    ArrowUp: () => { active = Math.max(0, active - 1); mark(); }, ArrowDown: () => { active = Math.min(data.questions.length - 1, active + 1); mark(); } };
  const listening = data.notebook ? root : document;
  listening.addEventListener("keydown", (event) => {
    sign = performance.now();
    if (data.notebook) event.stopPropagation();
    const typing = event.target.matches?.("textarea");
    if (typing && (event.key === "Escape" || (event.key === "Enter" && event.ctrlKey))) return root.focus({ preventScroll: true });
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.matches?.("button") && event.key === "Enter") return;
    if (/^[0-5]$/.test(event.key) && here()) { event.preventDefault(); return rate(active, Number(event.key)); }
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { event.preventDefault(); act(); }
  });
  root.addEventListener("pointerdown", () => { sign = performance.now(); });
  host.watch?.(() => { load(); draw(); });
  load();
  draw();
  root.focus({ preventScroll: true });
}
