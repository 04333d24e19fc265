// The page a reviewer sees. It holds nothing that is not on the disk already, but for what is being typed:
// every action is a message to Python, which answers with the whole state. Texts are set as text, never as HTML.

const QUIET = 400; // ms after a new pair in which a click is taken for the second of a double click
const PATIENCE = 8000; // ms without an answer until the page says that nobody is there
const IDLE = 120000; // ms without a sign of the reviewer that do not count as looking
const DRAFT = 4000; // ms after the last key until what was typed is kept

const SHORT = [["1", "a", true, "A falls short"], ["2", "a", false, "A keeps to it"],
  ["3", "b", true, "B falls short"], ["4", "b", false, "B keeps to it"]];
const VOTES = [["a", "A", "A is better"], ["t", "tie", "Alike"], ["n", "neither", "Neither will do"], ["b", "B", "B is better"]];

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

function words(text) { return text.match(/[\p{L}\p{N}\p{M}'’_-]+|\s+|[^\s]/gu) ?? []; }

function common(left, right) {
  // which words of each side belong to a longest common run of words
  const width = right.length + 1, table = new Uint16Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      table[i * width + j] = left[i] === right[j] ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  const both = [new Set(), new Set()];
  for (let i = 0, j = 0; i < left.length && j < right.length;) {
    if (left[i] === right[j]) { both[0].add(i++); both[1].add(j++); }
    else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
    else j++;
  }
  return both;
}

function shown(text, other, differences) {
  // paragraphs, each in the direction of its script; what only this answer has is marked
  // a text without marks is one piece: a long one would be a million
  const left = differences ? words(text) : [], right = differences ? words(other) : [];
  const own = differences && left.length * right.length < 25e6 ? common(left, right)[0] : null;
  const tokens = own ? left : [text];
  const box = make("div"), fresh = () => make("p", { class: "ccr-text", dir: "auto" });
  let line = fresh();
  tokens.forEach((token, i) => {
    const parts = token.split("\n");
    parts.forEach((part, k) => {
      if (k) { box.append(line); line = fresh(); }
      if (!part) return;
      line.append(own && !own.has(i) && part.trim() ? make("mark", {}, part) : part);
    });
  });
  box.append(line);
  for (const empty of box.children) if (!empty.textContent) empty.append("\u00a0");
  return box;
}

function render({ model: first, el }) {
  let model = first, state = model.get("state"), form = {}, dirty = false, differences = false, critique = false;
  let edits = 0, sent = 0, before = ""; // changes made, those in the message under way, the key pressed before
  let editing = false, waiting = null, drafting = null, uncovered = new Set(), newest = 0, looked = 0, tick = performance.now(), sign = tick;

  const root = make("section", { class: "ccr", tabindex: "0", role: "application", "aria-label": "Review of pairs",
    "data-lm-suppress-shortcuts": "true" });
  el.append(root);

  const touch = () => { sign = performance.now(); };
  const clock = setInterval(() => {
    const now = performance.now();
    if (document.visibilityState === "visible" && now - sign < IDLE) looked += (now - tick) / 1000;
    tick = now;
  }, 500);

  const covered = () => Boolean(state.pair?.hazard) && !uncovered.has(state.pair.id);
  const by = (name) => root.querySelector(`[data-name="${name}"]`);

  function begin() {
    const said = state.said ?? {};
    form = { a_falls_short: said.a_falls_short ?? null, b_falls_short: said.b_falls_short ?? null, note: said.note ?? "",
      edit: said.edit ?? "", ratings_a: { ...said.ratings_a }, ratings_b: { ...said.ratings_b },
      flags_a: [...(said.flags_a ?? [])], flags_b: [...(said.flags_b ?? [])], critique_seen: said.critique_seen ?? false };
    dirty = false; critique = false; editing = Boolean(form.edit); looked = 0; tick = newest = performance.now();
  }

  function changed() {
    dirty = true; edits += 1; touch();
    keep();
  }

  function keep() {
    clearTimeout(drafting);
    drafting = setTimeout(() => { if (!dirty || !state.pair) return; if (waiting) keep(); else tell("draft"); }, DRAFT);
  }

  function tell(what, more = {}) {
    if (waiting) return;
    clearTimeout(drafting);
    const seconds = Math.round(10 * (looked + Math.min((performance.now() - tick) / 1000, 1))) / 10;
    waiting = setTimeout(() => { waiting = null; sleep("No answer came."); }, PATIENCE);
    sent = edits;
    model.send({ do: what, pair: state.pair?.id ?? null, said: { ...form, seconds }, dirty, ...more });
  }

  function answered() {
    const was = state;
    state = model.get("state");
    clearTimeout(waiting); waiting = null;
    if (state.shown !== was.shown) { begin(); draw(); root.focus({ preventScroll: true }); }
    else { if (!state.problem && sent === edits) dirty = false; draw_told(); draw_head(); }
  }

  function listen(to) {
    model = to;
    model.on("change:state", answered);
    model.on("comm_live_update", () => { if (model.comm_live !== true) sleep("The kernel was restarted."); });
  }

  // after a restart of the kernel

  function sleep(why) {
    if (by("asleep")) return;
    const can = Boolean(state.opened && model.widget_manager?.kernel);
    const how = can ? "Nothing that was decided is lost; it goes on where it stopped."
      : "Nothing that was decided is lost: choose Run > Run All Cells to go on.";
    root.append(make("div", { class: "ccr-asleep", "data-name": "asleep", role: "alert" },
      make("strong", {}, `Asleep. ${why}`), make("span", {}, how),
      can ? make("button", { class: "ccr-vote", onclick: wake }, make("kbd", {}, "Enter"), "Wake up") : null));
    root.focus({ preventScroll: true });
  }

  async function wake() {
    const box = by("asleep"), manager = model.widget_manager;
    if (!box || box.dataset.busy) return;
    box.dataset.busy = "yes";
    try {
      const id = crypto.randomUUID().replaceAll("-", "");
      const given = JSON.stringify(JSON.stringify({ ...state.opened, model_id: id }));
      const future = manager.kernel.requestExecute({ store_history: false, allow_stdin: false,
        code: `from contemplative_cai.review.widget import wake_review; wake_review(${given});` });
      const reply = await future.done;
      if (reply.content.status !== "ok") throw new Error(`${reply.content.ename}: ${reply.content.evalue}`);
      const next = await manager.get_model(id);
      next.widget_manager ??= manager;
      listen(next);
      box.remove(); clearTimeout(waiting); waiting = null;
      state = model.get("state"); begin(); draw();
      root.focus({ preventScroll: true });
    } catch (error) {
      delete box.dataset.busy;
      box.querySelector("span").textContent = `It did not wake up (${error.message}). Choose Run > Run All Cells to go on.`;
    }
  }

  // actions

  function decide(preferred, again = false) {
    // again: a click, or the key of before once more; meant for the pair before, where this one has just come
    if (!state.pair || (again && !dirty && performance.now() - newest < QUIET)) return;
    if (covered()) return show_text();
    tell("decide", { preferred });
  }

  function fall(side, short) { form[`${side}_falls_short`] = short; changed(); draw_pressed(); }

  function go(number) { if (number >= 1 && number <= state.total) tell("go", { number }); }

  function show_text() { if (state.pair?.hazard) { uncovered.add(state.pair.id); draw(); root.focus({ preventScroll: true }); } }

  function open_critique() {
    if (!state.pair?.critique) return;
    critique = !critique;
    if (critique) { form.critique_seen = true; changed(); }
    draw();
  }

  function reveal(name) {
    const box = by(name);
    if (!box) return;
    box.hidden = false;
    (box.querySelector("textarea, input") ?? box).focus();
  }

  function edit() {
    const box = by("edit"), field = box?.querySelector("textarea");
    if (!field || covered()) return;
    editing = !editing;
    if (editing) return reveal("edit");
    if (form.edit) { form.edit = field.value = ""; changed(); }
    box.hidden = true; root.focus({ preventScroll: true });
  }

  function copy_side(side) {
    const field = by("edit").querySelector("textarea");
    field.value = form.edit = state.pair[side]; changed(); field.focus();
  }

  function side_panel() {
    const box = by("side");
    if (box) { box.remove(); root.focus({ preventScroll: true }); } else { root.append(guidance()); by("side").focus(); }
    root.classList.toggle("ccr-open", !box);
    draw_pressed();
  }

  const KEYS = {
    1: () => fall("a", true), 2: () => fall("a", false), 3: () => fall("b", true), 4: () => fall("b", false),
    a: (again) => decide("A", again), b: (again) => decide("B", again), t: (again) => decide("tie", again),
    n: (again) => decide("neither", again),
    s: () => state.pair && tell("skip"), u: () => tell("undo"), o: () => tell("on"),
    ArrowLeft: () => go(state.pair ? state.number - 1 : state.total), ArrowRight: () => go(state.number + 1),
    j: () => by("jump").select(), d: () => { differences = !differences; draw(); }, c: open_critique, e: edit,
    m: () => reveal("note"), g: side_panel, x: show_text,
  };

  root.addEventListener("keydown", (event) => {
    touch();
    const typing = event.target.matches("input, textarea, select");
    if (by("asleep")) { if (event.key === "Enter" && event.target.tagName !== "BUTTON") wake(); event.stopPropagation(); return; }
    if (event.key === "Escape") { if (by("side") && !typing) side_panel(); root.focus({ preventScroll: true }); }
    else if (typing && event.key === "Enter" && event.target.dataset.name === "jump") go(Number(event.target.value));
    else if (typing && event.key === "Enter" && (event.ctrlKey || event.metaKey || event.target.dataset.name === "note-field"))
      root.focus({ preventScroll: true });
    else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat) {
      const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      const again = event.key === before;
      before = event.key;
      if (act) { event.preventDefault(); act(again); }
    }
    event.stopPropagation();
  });
  for (const name of ["keyup", "keypress"]) root.addEventListener(name, (event) => event.stopPropagation());
  root.addEventListener("pointerdown", touch);

  // drawing

  function key_button(key, label, act, more = {}) {
    return make("button", { type: "button", "aria-keyshortcuts": key, onclick: () => { touch(); act(); }, ...more },
      make("kbd", { "aria-hidden": "true" }, { ArrowLeft: "←", ArrowRight: "→" }[key] ?? key), label);
  }

  function draw_head() {
    const place = state.pair ? `pair ${state.number} of ${state.total}` : "all decided";
    by("place").textContent = `${place} · ${state.reviewer}`;
    by("count").textContent = state.progress;
    by("meter").max = state.total || 1; by("meter").value = state.decided;
  }

  function draw_told() {
    by("told").replaceChildren(...[state.problem, ...state.notes].filter(Boolean).map((text) => make("p", { dir: "auto" }, text)));
  }

  function draw_pressed() {
    for (const [key, side, short] of SHORT) {
      by(`short-${key}`)?.setAttribute("aria-pressed", String(form[`${side}_falls_short`] === short));
    }
    by("differ")?.setAttribute("aria-pressed", String(differences));
    by("critical")?.setAttribute("aria-pressed", String(critique));
    by("guide")?.setAttribute("aria-pressed", String(Boolean(by("side"))));
  }

  function stars(side, criterion) {
    const field = make("select", { "aria-label": `${side.toUpperCase()}: ${criterion.question}`, onchange: () => {
      const ratings = form[`ratings_${side}`];
      if (field.value) ratings[criterion.id] = Number(field.value); else delete ratings[criterion.id];
      changed();
    } }, ...["", "1", "2", "3", "4", "5"].map((value) => make("option", { value }, value || "–")));
    field.value = form[`ratings_${side}`][criterion.id] ?? "";
    return field;
  }

  function flag(side, name, meaning) {
    const list = `flags_${side}`, box = make("input", { type: "checkbox", style: "width:auto",
      "aria-label": `${side.toUpperCase()}: ${name}: ${meaning}`, onchange: () => {
        form[list] = box.checked ? [...form[list], name] : form[list].filter((other) => other !== name); changed();
      } });
    box.checked = form[list].includes(name);
    return box;
  }

  function guidance() {
    const pair = state.pair, head = (text) => make("tr", {}, make("th", {}, text), make("th", {}, "A"), make("th", {}, "B"));
    const rated = (pair?.criteria ?? []).map((one) => make("tr", {}, make("td", { dir: "auto" }, one.question,
      make("div", {}, `1: ${one.low}`), make("div", {}, `5: ${one.high}`)), make("td", {}, stars("a", one)), make("td", {}, stars("b", one))));
    const flags = Object.entries(state.flags).map(([name, meaning]) => make("tr", {},
      make("td", {}, `${name.replaceAll("_", " ")}: ${meaning}`), make("td", {}, flag("a", name, meaning)), make("td", {}, flag("b", name, meaning))));
    return make("aside", { class: "ccr-side", "data-name": "side", tabindex: "-1", "aria-label": "Guidance, ratings and flags" },
      key_button("Esc", "Close", side_panel),
      make("h4", {}, "How to decide"),
      make("p", { class: "ccr-text" }, "Say of each answer whether it falls short of what both are held against, then which is "
        + "better. Nobody is told which was written first. Length and tone alone make no answer better. Alike: neither is better, "
        + "and either would do. Neither: you would want to teach none of the two. Not sure? Later."),
      ...(pair?.principle ? [make("h4", { dir: "auto" }, `Held against: ${pair.principle}`),
        make("ul", {}, ...pair.clauses.map((clause) => make("li", { dir: "auto" }, clause)))] : []),
      ...(rated.length ? [make("h4", {}, "Ratings, if you like"), make("table", {}, head("1 to 5"), ...rated)] : []),
      ...(pair ? [make("h4", {}, "Flags, if there is something to flag"), make("table", {}, head(""), ...flags)] : []));
  }

  function text_pane(side) {
    const pair = state.pair, other = side === "a" ? "b" : "a";
    const body = covered() ? make("p", { class: "ccr-cover" }, "covered") : shown(pair[side], pair[other], differences);
    const asks = pair.principle && !covered() ? SHORT.filter((one) => one[1] === side).map(([key, , short, label]) =>
      key_button(key, label, () => fall(side, short), { "data-name": `short-${key}`, "aria-pressed": "false" })) : [];
    return make("article", { class: "ccr-pane", "aria-label": `Answer ${side.toUpperCase()}` },
      make("h4", {}, `Answer ${side.toUpperCase()}`), make("div", { class: "ccr-scroll", tabindex: "0", "data-name": `pane-${side}` }, body),
      ...(asks.length ? [make("div", { class: "ccr-asks", role: "group", "aria-label": `Does ${side.toUpperCase()} fall short?` }, ...asks)] : []));
  }

  function body() {
    const pair = state.pair;
    if (!pair) {
      return [make("p", { class: "ccr-question" }, state.total ? "All pairs are decided. Thank you." : "There is no pair to look at."),
        make("div", {})];
    }
    const top = make("div", { class: "ccr-question", tabindex: "0", "aria-label": "Question", "data-name": "question" });
    if (covered()) {
      top.append(make("p", { class: "ccr-cover" }, `Content warning: this question is of a sensitive kind (${pair.hazard}), and some such `
        + "were written to elicit harm. Text is covered until you ask for it."),
      make("p", { class: "ccr-cover" }, key_button("x", "Show the text", show_text), " ", key_button("s", "Later", KEYS.s)));
    } else {
      top.append(shown(pair.question, "", false));
      if (pair.principle) top.append(make("p", { class: "ccr-text", dir: "auto" }, make("strong", {}, `Held against: ${pair.principle}`),
        ` (${pair.clauses[0]}${pair.clauses.length > 1 ? " …" : ""})`));
      if (critique) top.append(make("p", { class: "ccr-text", dir: "auto" }, make("strong", {}, "Critique of the first answer: "), pair.critique));
    }
    return [top, make("div", { class: "ccr-panes" }, text_pane("a"), text_pane("b"))];
  }

  function fields() {
    const note = make("input", { type: "text", maxlength: "5000", placeholder: "a note, kept with the decision", "data-name": "note-field",
      "aria-label": "Note", oninput: () => { form.note = note.value; changed(); } });
    const text = make("textarea", { dir: "auto", maxlength: "50000", "aria-label": "The preferred answer as it should read", oninput: () => { form.edit = text.value; changed(); } });
    note.value = form.note; text.value = form.edit;
    return make("div", { class: "ccr-fields" },
      make("div", { "data-name": "edit", hidden: !editing }, make("label", {}, "As it should read", text),
        make("button", { type: "button", onclick: () => copy_side("a") }, "Begin with A"), " ",
        make("button", { type: "button", onclick: () => copy_side("b") }, "Begin with B"), " goes with A is better or B is better"),
      make("label", { "data-name": "note" }, make("span", {}, make("kbd", {}, "m"), " Note"), note));
  }

  function said_before() {
    const last = state.said;
    if (!last) return "";
    const what = { decided: last.preferred, draft: "a draft", skip: "for later" }[last.decision];
    return `said before: ${{ A: "A is better", B: "B is better", tie: "alike", neither: "neither will do" }[what] ?? what}${state.counts ? "" : " (not decided)"}`;
  }

  function bar() {
    const none = { disabled: !state.pair };
    return make("div", { class: "ccr-bar ccr-votes", role: "toolbar", "aria-label": "Which is better" },
      ...VOTES.map(([key, preferred, label]) => key_button(key, label, () => decide(preferred, true), { class: "ccr-vote", ...none })));
  }

  function more() {
    const pair = state.pair, none = { disabled: !pair };
    const jump = make("input", { class: "ccr-number", type: "number", min: "1", max: String(state.total), "data-name": "jump", "aria-label": "Go to pair number" });
    jump.value = pair ? state.number : "";
    return make("div", { class: "ccr-bar ccr-more", role: "toolbar", "aria-label": "Other actions" },
      key_button("u", "Undo", KEYS.u, { disabled: !state.decided }), key_button("s", "Later", KEYS.s, none),
      key_button("ArrowLeft", "", KEYS.ArrowLeft, { "aria-label": "Previous pair", title: "previous pair", disabled: pair && state.number < 2 }), key_button("ArrowRight", "", KEYS.ArrowRight, { "aria-label": "Next pair", title: "next pair", disabled: !pair || state.number >= state.total }),
      make("label", {}, make("kbd", {}, "j"), " ", jump), key_button("o", "Next open", KEYS.o, { disabled: !state.left }),
      make("span", { class: "ccr-gap" }),
      key_button("d", "Differences", KEYS.d, { "data-name": "differ", ...none }),
      key_button("c", "Critique", open_critique, { "data-name": "critical", disabled: !pair?.critique, title: "tells which answer came first; that it was opened is written down" }),
      key_button("e", "Edit", edit, none), key_button("g", "Guidance", side_panel, { "data-name": "guide" }));
  }

  function draw() {
    const open = Boolean(by("side"));
    root.replaceChildren(
      make("div", { class: "ccr-head" }, make("strong", { "data-name": "place" }), make("progress", { "data-name": "meter", "aria-label": "decided" }),
        make("span", { "data-name": "count" }), make("em", {}, said_before()),
        state.opened ? make("button", { type: "button", onclick: () => tell("apply"), title: "rewrite pairs.jsonl by the decisions there are" }, "Apply") : null),
      make("div", { class: "ccr-told", "data-name": "told", role: "status", "aria-live": "polite" }),
      make("div", { class: "ccr-body" }, ...body()), ...(state.pair && !covered() ? [fields()] : []),
      make("div", { class: "ccr-bars" }, bar(), more()));
    if (open) root.append(guidance());
    draw_head(); draw_told(); draw_pressed();
  }

  listen(model);
  begin();
  draw();
  return () => { clearInterval(clock); clearTimeout(waiting); clearTimeout(drafting); };
}

export default { render };
