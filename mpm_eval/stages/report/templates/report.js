"use strict";
// Everything in the data was written by models and data files: it only ever becomes text nodes and
// attributes that hold text (lang, title), never markup, and pictures become data: addresses.
(() => {
  const PAGE = 20;
  const SHOWN = 600; // characters of a text before "show all"
  const VERDICTS = {
    right: ["✓", "right"],
    wrong: ["✗", "wrong"],
    language: ["◆", "wrong language"],
    graded: ["~", "graded"],
    failed: ["!", "failed"],
    unknown: ["", "not judged"],
  };
  const FLIPS = { 0: "all", 1: "right only in the second", "-1": "right only in the first" };
  // C0 and C1 controls except tab and line feed, marks of direction, the byte order mark
  const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]/g;
  const NAMES = {
    "\u202a": "LRE", "\u202b": "RLE", "\u202c": "PDF", "\u202d": "LRO", "\u202e": "RLO",
    "\u2066": "LRI", "\u2067": "RLI", "\u2068": "FSI", "\u2069": "PDI", "\ufeff": "BOM",
    "\u2028": "LS", "\u2029": "PS", "\u007f": "DEL", "\u0000": "NUL", "\u001b": "ESC",
    "\u000d": "CR",
  };
  const byId = (id) => document.getElementById(id);

  copyButtons();
  if (!byId("browser")) return;
  const data = JSON.parse(byId("data").textContent);
  byId("browser").hidden = false;
  const state = { task: 0, found: [], page: 0, current: -1 };

  function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  }

  function whole(text) {
    return typeof text === "string" ? text : text[0];
  }

  function appendText(parent, text) {
    let from = 0;
    for (const match of text.replace(/\r\n/g, "\n").matchAll(CONTROL)) {
      const source = match.input;
      parent.append(source.slice(from, match.index));
      const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      const mark = element("span", "control", NAMES[match[0]] || "U+" + code);
      mark.title = "control character U+" + code;
      parent.append(mark);
      from = match.index + 1;
    }
    parent.append(text.replace(/\r\n/g, "\n").slice(from));
  }

  /** Text that may break after each "/". */
  function appendPath(parent, text) {
    text.split("/").forEach((part, i) => {
      if (i) parent.append("/", document.createElement("wbr"));
      appendText(parent, part);
    });
  }

  /** A block of text in its own direction; long ones open on request. */
  function textBlock(className, text, language) {
    const block = element("div", "text " + className);
    block.dir = "auto";
    if (language) block.lang = language;
    const kept = whole(text);
    const total = typeof text === "string" ? text.length : text[1];
    if (kept === "") {
      block.append(element("span", "small", "(empty)"));
    } else if (kept.length <= SHOWN && total <= kept.length) {
      appendText(block, kept);
    } else {
      appendText(block, kept.slice(0, SHOWN));
      const size = kept.length < total
        ? `show ${kept.length.toLocaleString("en")} of ${total.toLocaleString("en")} characters`
        : `show all ${total.toLocaleString("en")} characters`;
      const more = element("button", "more", size);
      more.type = "button";
      more.addEventListener("click", () => {
        block.replaceChildren();
        appendText(block, kept);
        if (kept.length < total) block.append(element("span", "small", " … (cut in this file)"));
      });
      block.append("… ", more);
    }
    return block;
  }

  function picture(place) {
    if (place >= 0) {
      const image = element("img", "picture");
      image.src = data.pictures[place];
      image.alt = "picture of the sample";
      image.loading = "lazy";
      return image;
    }
    return element("div", "no-picture", place === -1 ? "no picture" : "picture cannot be read");
  }

  function badge(verdict) {
    const [mark, name] = VERDICTS[verdict];
    return element("span", "badge " + verdict, mark ? mark + " " + name : name);
  }

  function said(answer, number, language, metrics) {
    const block = element("div", "said");
    if (data.runs.length > 1) block.append(element("bdi", "run-name", data.runs[number]));
    if (answer.e) block.append(textBlock("error", answer.e));
    else block.append(textBlock("output", answer.t, language));
    block.append(badge(answer.v));
    const values = (answer.m || [])
      .map((value, i) => (value === null ? "" : metrics[i] + "\u00a0" + value))
      .filter(Boolean);
    if (values.length && answer.v === "graded") {
      block.append(element("span", "small", " " + values.join(", ")));
    } else if (values.length) {
      block.lastChild.title = values.join(", ");
    }
    return block;
  }

  function answerPanel(language, member, metrics, sample) {
    const panel = element("section", "answer");
    const [name, own] = data.languages[language];
    const title = element("h4", "", name);
    if (own !== name) {
      const native = element("bdi", "", own);
      native.lang = language;
      title.append(" · ", native);
    }
    panel.append(title);
    if ("p" in member && member.p !== sample.picture) panel.append(picture(member.p));
    panel.append(textBlock("question", member.q, language));
    member.a.forEach((answer, i) => {
      if (answer) panel.append(said(answer, i, language, metrics));
    });
    if (member.f) panel.append(element("span", "badge flip", "⇄ " + FLIPS[member.f]));
    const reference = element("div", "small");
    reference.append("reference: ");
    appendInline(reference, member.r, language);
    panel.append(reference);
    if (member.o) {
      const options = element("div", "small");
      options.append("options: ");
      appendInline(options, member.o, language);
      panel.append(options);
    }
    return panel;
  }

  function appendInline(parent, texts, language) {
    texts.forEach((text, i) => {
      if (i) parent.append(" · ");
      const part = element("bdi", "");
      part.lang = language;
      const kept = whole(text);
      appendText(part, kept.slice(0, SHOWN));
      if (kept.length > SHOWN || typeof text !== "string") part.append("…");
      parent.append(part);
    });
  }

  function card(sample, place) {
    const task = data.tasks[state.task];
    const article = element("article", "sample");
    article.tabIndex = -1;
    article.dataset.place = place;
    const link = element("a", "");
    link.href = address(sample);
    appendPath(link, sample.id);
    const title = element("h3", "", element("bdi", "", link));
    title.id = "sample-" + place;
    article.setAttribute("aria-labelledby", title.id);
    const about = element("div", "about", picture(sample.picture), title);
    for (const part of [sample.category, sample.cell]) {
      if (part) {
        const line = element("div", "");
        appendPath(line, part);
        about.append(line);
      }
    }
    const answers = element("div", "answers");
    for (const language of shownLanguages(sample)) {
      answers.append(answerPanel(language, sample.by[language], task.metrics, sample));
    }
    article.append(about, answers);
    article.addEventListener("click", (event) => {
      if (!event.target.closest("a, button, summary")) select(place, false);
    });
    return article;
  }

  function address(sample) {
    const task = data.tasks[state.task].name;
    return "#" + encodeURIComponent(task) + "/" + encodeURIComponent(sample.id);
  }

  function shownLanguages(sample) {
    const wanted = byId("language").value;
    return Object.keys(data.languages).filter(
      (tag) => Object.hasOwn(sample.by, tag) && (wanted === "" || wanted === tag),
    );
  }

  // --- filters

  const texts = new WeakMap();
  const folded = (text) => text.normalize("NFKC").toLowerCase();

  function haystack(sample) {
    if (!texts.has(sample)) {
      const parts = [sample.id, sample.category, sample.cell];
      for (const member of Object.values(sample.by)) {
        parts.push(whole(member.q), ...member.r.map(whole), ...(member.o || []).map(whole));
        for (const answer of member.a) if (answer) parts.push(whole(answer.t), whole(answer.e || ""));
      }
      texts.set(sample, folded(parts.join("\n")));
    }
    return texts.get(sample);
  }

  function verdicts(sample) {
    const found = new Set();
    for (const tag of shownLanguages(sample)) {
      for (const answer of sample.by[tag].a) if (answer) found.add(answer.v);
    }
    return found;
  }

  function numRight(sample) {
    return shownLanguages(sample)
      .flatMap((tag) => sample.by[tag].a)
      .filter((answer) => answer && answer.v === "right").length;
  }

  function passes(sample, needle) {
    const part = byId("part").value;
    if (part && part !== "category " + sample.category && part !== "cell " + sample.cell) return false;
    const flip = byId("flip").value;
    if (flip) {
      const found = shownLanguages(sample).map((tag) => sample.by[tag].f || 0);
      if (flip === "any" ? !found.some(Boolean) : !found.includes(Number(flip))) return false;
    }
    if (!shownLanguages(sample).length) return false;
    return !needle || haystack(sample).includes(needle);
  }

  function option(value, text) {
    const made = element("option", "", text);
    made.value = value;
    return made;
  }

  function fill(select, options) {
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => option(value, text)));
    select.value = options.some(([value]) => value === before) ? before : "";
  }

  function chooseTask(number) {
    state.task = number;
    byId("task").value = String(number);
    const samples = data.tasks[number].samples;
    const tags = Object.keys(data.languages).filter((tag) => samples.some((s) => Object.hasOwn(s.by, tag)));
    fill(byId("language"), [["", "all"], ...tags.map((tag) => [tag, data.languages[tag][0]])]);
    const parts = ["category", "cell"].flatMap((field) => {
      const values = [...new Set(samples.map((sample) => sample[field]).filter(Boolean))].sort();
      return values.map((value) => [field + " " + value, value]);
    });
    fill(byId("part"), [["", "all"], ...parts]);
    byId("part-label").hidden = parts.length < 2;
    byId("flip-label").hidden = data.runs.length < 2;
    fill(byId("flip"), [["", FLIPS[0]], ["any", "either way"], ["1", FLIPS[1]], ["-1", FLIPS["-1"]]]);
  }

  function update() {
    const samples = data.tasks[state.task].samples;
    const needle = folded(byId("search").value.trim());
    const left = samples.filter((sample) => passes(sample, needle));
    const counts = {};
    const of = new Map();
    for (const sample of left) {
      of.set(sample, verdicts(sample));
      for (const verdict of of.get(sample)) counts[verdict] = (counts[verdict] || 0) + 1;
    }
    const select = byId("verdict");
    const known = Object.keys(VERDICTS).filter((v) => counts[v] || v === select.value);
    fill(select, [["", `any (${left.length})`], ...known.map((v) => [v, `${VERDICTS[v][1]} (${counts[v] || 0})`])]);
    const wanted = select.value;
    state.found = left.filter((sample) => !wanted || of.get(sample).has(wanted));
    const order = byId("order").value;
    if (order !== "data") {
      const sign = order === "hard" ? 1 : -1;
      const right = new Map(state.found.map((sample) => [sample, numRight(sample)]));
      state.found.sort((a, b) => sign * (right.get(a) - right.get(b)));
    }
    byId("count").textContent =
      state.found.length === samples.length
        ? `${samples.length} samples`
        : `${state.found.length} of ${samples.length} samples`;
    state.current = -1;
    draw(0);
  }

  function draw(page) {
    const pages = Math.max(1, Math.ceil(state.found.length / PAGE));
    state.page = Math.min(Math.max(page, 0), pages - 1);
    const from = state.page * PAGE;
    const cards = state.found.slice(from, from + PAGE).map((sample, i) => card(sample, from + i));
    byId("list").replaceChildren(...cards);
    byId("page").textContent = `page ${state.page + 1} of ${pages}`;
    for (const end of ["", "-end"]) {
      byId("previous" + end).disabled = state.page === 0;
      byId("next" + end).disabled = state.page === pages - 1;
    }
  }

  // --- moving

  function select(place, move) {
    if (place < 0 || place >= state.found.length) return;
    if (Math.floor(place / PAGE) !== state.page) draw(Math.floor(place / PAGE));
    for (const old of document.querySelectorAll(".sample.current")) old.classList.remove("current");
    state.current = place;
    const article = document.querySelector(`.sample[data-place="${place}"]`);
    article.classList.add("current");
    history.replaceState(null, "", address(state.found[place]));
    if (move) {
      article.focus({ preventScroll: true });
      article.scrollIntoView({ block: "start" });
    }
  }

  function turn(by) {
    draw(state.page + by);
    byId("samples").scrollIntoView();
  }

  function decoded(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return "";
    }
  }

  function follow() {
    const [task, id] = location.hash.slice(1).split("/").map(decoded);
    const number = data.tasks.findIndex((known) => known.name === task);
    if (number < 0 || id === undefined) return;
    for (const name of ["language", "verdict", "flip", "part", "search"]) byId(name).value = "";
    chooseTask(number);
    update();
    const place = state.found.findIndex((sample) => sample.id === id);
    if (place >= 0) select(place, true);
    else byId("count").textContent = "the sample of this address is not in this file";
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    if (event.key === "Escape" && event.target === byId("search")) byId("search").blur();
    if (event.target.closest("input, select, textarea, .wide, pre")) return;
    const steps = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 };
    if (event.key in steps) {
      const start = state.current < 0 ? state.page * PAGE - (steps[event.key] > 0 ? 1 : 0) : state.current;
      select(start + steps[event.key], true);
    } else if (event.key === "/") {
      byId("search").focus();
    } else if (event.key === "?") {
      byId("help").showModal();
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Buttons beside commands; where the clipboard is closed to the page, the text is selected. */
  function copyButtons() {
    for (const button of document.querySelectorAll(".copy")) {
      const code = button.parentElement.querySelector("code");
      button.hidden = false;
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(code.textContent);
          button.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(code);
          button.textContent = "Selected: press Ctrl+C";
        }
      });
    }
  }

  let waiting = 0;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("task").addEventListener("change", () => {
    chooseTask(Number(byId("task").value));
    update();
  });
  for (const name of ["language", "verdict", "flip", "part", "order"]) {
    byId(name).addEventListener("change", update);
  }
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 120);
  });
  for (const end of ["", "-end"]) {
    byId("previous" + end).addEventListener("click", () => turn(-1));
    byId("next" + end).addEventListener("click", () => turn(1));
  }
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("help-close").addEventListener("click", () => byId("help").close());
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", follow);
  chooseTask(0);
  update();
  follow();
})();
