// The panel beside the timeline: what is selected, in words.

import { ask, query, session as path } from "./api.js";
import { h, swap } from "./dom.js";
import { CODE, colours } from "./theme.js";
import { amount, clock, count, duration, instant, percent, words } from "./units.js";
import { CAUSES, REASONS } from "./vocabulary.js";

const LEVELS = { 10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical" };

export class Details {
  /** `go` has task(task, time), span(id, start, end), range(start, end): where links lead. */
  constructor(host, timeline, session, go) {
    Object.assign(this, { host, timeline, session, go });
    this.asked = null;
  }

  get outline() { return this.timeline.outline; }

  close() {
    this.asked?.abort();
    this.host.hidden = true;
    swap(this.host);
    this.timeline.resize();
  }

  async show(selection) {
    this.asked?.abort();
    this.selection = selection;
    if (!selection) { if (!this.host.hidden) this.close(); return; }
    const asked = this.asked = new AbortController();
    const draw = {
      phase: () => this.phase(selection, asked.signal), span: () => this.span(selection, asked.signal), range: () => this.range(selection, asked.signal),
      row: () => this.row(selection.row, asked.signal), gc: () => this.thing(`Collection of generation ${selection.generation}`, selection),
      thread: () => this.thread(selection), message: () => this.message(selection),
    }[selection.kind];
    try {
      const content = await draw();
      if (asked.signal.aborted || this.selection !== selection) return;
      const was = this.host.hidden;
      this.host.hidden = false;
      swap(this.host, content);
      this.host.scrollTop = 0;
      if (was) this.timeline.resize();
    } catch (error) {
      if (error.name === "AbortError" || asked.signal.aborted) return;
      this.host.hidden = false;
      swap(this.host, this.header("Not to be had"), h("section", {}, h("p", { class: "soft" }, error.message)));
    }
  }

  /** What `ask` needs; while the session is being indexed the panel says how far that is. */
  patiently(signal) {
    return { signal, progress: (share) => {
      if (signal.aborted) return;
      const was = this.host.hidden;
      this.host.hidden = false;
      swap(this.host, this.header("Not known yet"), h("section", {}, h("p", { class: "soft" }, `The session is being indexed: ${Math.floor(share * 100)} %`)));
      if (was) this.timeline.resize();
    } };
  }

  header(title, kind = "") {
    return h("header", {}, h("div", { style: { flex: "1", minWidth: 0 } }, kind ? h("div", { class: "faint" }, kind) : null, h("h2", { dir: "auto" }, title)),
      h("button", { class: "quiet", "aria-label": "Close the details", title: "Close (Esc)", onclick: () => this.timeline.selectRange(null) }, "✕"));
  }

  taskLink(task, time) {
    if (!task) return h("span", { class: "soft" }, "no task");
    return h("button", { class: "link", dir: "auto", "data-task": task, onclick: () => this.go.task(task, time) }, `${this.outline.name(task)} `, h("span", { class: "faint" }, String(task)));
  }

  when(ns) {
    const { wall } = this.outline, step = Math.max(1, this.timeline.span / this.timeline.width / 10);
    return [instant(ns, Math.min(step, 1000)), wall === null ? null : h("span", { class: "faint" }, `  ${clock(wall + BigInt(Math.round(ns)), 6)}`)];
  }

  facts(rows) {
    return h("dl", {}, rows.filter((row) => row && row[1] !== null && row[1] !== undefined && row[1] !== "").map(([name, value]) => [h("dt", {}, name), h("dd", { dir: typeof value === "string" ? "auto" : false }, value)]));
  }

  swatch(code) {
    const shape = code === CODE.RUNNING ? "" : code === CODE.READY ? " middle" : code === CODE.UNSURE ? " hatch" : " thin";
    return h("i", { class: `swatch${shape}`, style: code === CODE.UNSURE ? {} : { background: colours.state[code] } });
  }

  // --- a phase of a task ---------------------------------------------------------------------------

  async phase(selection, signal) {
    const { outline } = this;
    const at = (ns) => outline.began + BigInt(Math.max(0, Math.round(ns)));
    const p = await ask(path(this.session, `/phase${query({ task: selection.task, time: at(selection.time) })}`), this.patiently(signal));
    Object.assign(selection, { start: p.start, end: p.end, code: p.code });
    this.timeline.dirty();
    const i = outline.place.get(p.task), { tasks } = outline;
    const state = h("span", { class: "state", "data-state": p.state }, this.swatch(p.code), p.state === "waiting" ? `waits: ${words(p.reason)}` : p.state);
    const reason = p.state === "waiting" ? REASONS.find((r) => r?.name === p.reason) : null;
    const cause = CAUSES.find((c) => c?.name === p.cause);
    const ended = p.closed ?? (p.state === "unknown" ? "a snapshot told" : "it goes on where the trace ends");
    return [
      this.header(outline.name(p.task), `task ${p.task}`),
      h("section", {}, this.facts([
        ["State", state], ["For", h("b", { "data-ns": p.end - p.start }, duration(p.end - p.start))], ["From", this.when(p.start)], ["To", this.when(p.end)],
        reason ? ["Waits for", `${reason.meaning}${p.object ? ` (${reason.identity || "object"} ${p.object})` : ""}`] : null,
        p.named ? ["Called", p.named] : null,
        p.others ? ["With it", `${count(p.others)} more wait for the same`] : null,
        p.state === "waiting" && p.closed ? ["Woken by", p.waker ? this.taskLink(p.waker, p.end - 1) : h("span", {}, p.cause === "timer" ? "a timer" : p.cause === "io" ? "I/O" : words(p.cause || "nobody known"))] : null,
        p.state === "runnable" && p.waker ? ["Made ready by", this.taskLink(p.waker, p.start - 1)] : null,
        cause && p.cause !== "unknown" ? ["Cause", `${words(p.cause)}: ${cause.meaning}`.replaceAll("`", "")] : null,
        p.cancelled ? ["Cancelled", h("span", { "data-cancel": p.cancelled.source }, `${words(p.cancelled.source)}: ${p.cancelled.meaning}`.replaceAll("`", ""), p.cancelled.why ? `, “${p.cancelled.why}”` : "", ` at ${instant(p.cancelled.asked, 1000)} `)] : null,
        p.cancelled?.requester ? ["Asked for by", this.taskLink(p.cancelled.requester, p.cancelled.asked)] : null,
        ["Began with", p.opened ? h("code", {}, p.opened) : h("span", { class: "soft" }, "a snapshot")], ["Ended with", p.closed ? h("code", {}, p.closed) : h("span", { class: "soft" }, ended)],
        p.seq >= 0 ? ["Event", h("span", { class: "faint" }, `proc ${p.proc}, number ${count(p.seq)}`)] : null,
      ])),
      h("section", { class: "tools" },
        h("button", { onclick: () => this.go.task(p.task, p.start - 1), disabled: p.start <= 0 }, "← before"),
        h("button", { onclick: () => this.go.task(p.task, p.end) }, "after →"),
        p.waker ? h("button", { onclick: () => this.go.task(p.waker, (p.state === "runnable" ? p.start : p.end) - 1) }, "to the waker") : null,
        h("button", { onclick: () => this.timeline.fit() }, "zoom to it")),
      p.stack.length ? this.stack(p.state === "running" ? "What ran" : "Where it is suspended", p.stack) : null,
      p.woke.length ? h("section", {}, h("h3", {}, `Woke ${count(p.woke.length)}`), h("ul", { class: "list" }, p.woke.slice(0, 40).map(([time, task, why]) => h("li", {}, this.taskLink(task, time), h("small", {}, `${words(why)} +${duration(time - p.start)}`))))) : null,
      p.regions.length ? this.pieces("Regions", p.regions) : null,
      p.messages.length ? this.messages(p.messages) : null,
      i === undefined ? null : h("section", {}, h("h3", {}, "Task"), this.facts([
        ["Entry", outline.texts[tasks.entry[i]]], ["Parent", tasks.parent[i] ? this.taskLink(tasks.parent[i], tasks.begin[i]) : null], ["Nursery", tasks.nursery[i] || null],
        ["Created", tasks.flags[i] & 4 ? "before the trace" : this.when(tasks.begin[i])],
        ["Ended", tasks.flags[i] & 2 ? "in a gap of the trace" : tasks.flags[i] & 1 ? "lives at the end of the trace" : this.when(tasks.end[i])], ["Lived", duration(tasks.end[i] - tasks.begin[i])],
        p.ending.outcome !== "unknown" ? ["Outcome", h("span", { class: p.ending.outcome === "raised" ? "bad" : "" }, words(p.ending.outcome))] : null,
        p.ending.exception ? ["Error", h("span", { class: "bad", dir: "auto" }, `${p.ending.exception}${p.ending.message ? `: ${p.ending.message}` : ""}`)] : null,
      ])),
    ];
  }

  stack(title, rows) {
    const own = (file) => !/\/(trio|outcome|anyio)\//.test(file);
    return h("section", {}, h("h3", {}, title), h("ol", { class: "stack" }, rows.map(([fn, file, line]) => h("li", { class: own(file) ? "" : "foreign" }, fn, h("small", {}, `${file}:${line}`)))));
  }

  attributes(values) {
    const rows = values ? Object.entries(values) : [];
    return rows.length ? h("section", {}, h("h3", {}, "Attributes"), this.facts(rows.map(([key, value]) => [key, value instanceof Uint8Array ? `${value.length} bytes` : String(value)]))) : null;
  }

  messages(rows) {
    return h("section", {}, h("h3", {}, "Messages"), h("ul", { class: "list" }, rows.map(([time, level, text, attributes]) => h("li", {}, h("span", { dir: "auto" }, `${text}${attributes ? ` ${JSON.stringify(attributes)}` : ""}`), h("small", {}, LEVELS[level] ?? level)))));
  }

  pieces(title, pieces) {
    return h("section", {}, h("h3", {}, title), h("ul", { class: "list" }, pieces.map((piece) => h("li", {}, piece.kind === "span"
      ? h("button", { class: "link", dir: "auto", onclick: () => this.go.span(piece.id) }, piece.name) : h("span", { dir: "auto" }, piece.name, piece.attributes ? h("span", { class: "faint" }, ` ${JSON.stringify(piece.attributes)}`) : null),
    h("small", {}, duration(piece.end - piece.start))))));
  }

  // --- a span ----------------------------------------------------------------------------------------

  async span(selection, signal) {
    const s = await ask(path(this.session, `/piece${query({ kind: "span", id: selection.id })}`), this.patiently(signal));
    Object.assign(selection, { start: s.start, end: s.end, row: `s${s.row}` });
    this.timeline.dirty();
    return [
      this.header(s.name || "(no name)", `span ${s.id}`),
      h("section", {}, this.facts([["Took", h("b", { "data-ns": s.end - s.start }, duration(s.end - s.start) + (s.open ? " so far" : ""))], ["From", this.when(s.start)], ["To", s.open ? "it has not ended" : this.when(s.end)], ["Began in", this.taskLink(s.task, s.start)]])),
      h("section", { class: "tools" }, h("button", { onclick: () => this.timeline.fit() }, "zoom to it"), this.go.why ? h("button", { onclick: () => this.go.why(s) }, "why so long?") : null),
      this.attributes(s.attributes),
      s.parents.length ? this.pieces("Part of", s.parents) : null,
      s.children.length ? this.pieces(`Parts, ${count(s.children.length)}`, s.children.slice(0, 100)) : null,
      s.messages.length ? this.messages(s.messages) : null,
    ];
  }

  /** Where the time of a span went, by the critical path that is drawn. */
  explain(answer, start) {
    const { duration: whole } = answer;
    const group = (g, depth) => [h("span", { style: { paddingLeft: `${depth * 12}px` }, dir: "auto" }, g.text || words(g.kind)), h("span", { class: "track" }, h("i", { style: { width: `${Math.min(100, 100 * g.total / whole)}%`, background: g.kind === "running" ? colours.running : g.kind === "waiting" || g.kind === "outside" ? colours.state[CODE.BLOCKED + Math.max(1, REASONS.findIndex((r) => r?.name === g.reason))] : colours.ready } })),
      h("span", { class: "num", "data-path": g.kind, "data-ns": g.total }, `${duration(g.total)}  `, h("span", { class: "faint" }, percent(g.total / whole))), ...(depth < 3 ? (g.groups ?? []).slice(0, 6).map((inner) => group(inner, depth + 1)) : [])];
    this.asked?.abort();
    this.selection = null;
    const was = this.host.hidden;
    this.host.hidden = false;
    swap(this.host, this.header(answer.name || "critical path", "why so long"), h("section", {}, h("p", { dir: "auto" }, answer.text)), answer.gaps ? h("section", {}, h("p", { class: "bad" }, "Events are missing in it.")) : null,
      h("section", {}, h("h3", {}, `Where ${duration(whole)} went`), h("div", { class: "bars tight" }, (answer.groups ?? []).map((g) => group(g, 0)))),
      h("section", {}, h("h3", {}, `The path, ${count(answer.path.length)} pieces`), h("ul", { class: "list" }, answer.path.slice(0, 100).map((p) => h("li", {}, h("span", {}, `${words(p.kind)}${p.reason ? ` for ${words(p.reason)}` : ""} `, p.waker ? this.taskLink(p.waker, Number(BigInt(p.end) - this.outline.began) - 1) : null), h("small", {}, duration(p.duration)))))));
    if (was) this.timeline.resize();
    return start;
  }

  thing(title, s) {
    return [this.header(title), h("section", {}, this.facts([["Took", h("b", {}, duration(s.end - s.start))], ["From", this.when(s.start)], ["To", this.when(s.end)]])),
      h("section", { class: "tools" }, h("button", { onclick: () => this.timeline.fit() }, "zoom to it"))];
  }

  thread(s) {
    return [this.header(s.name || "call in a thread", "call in a worker thread"), h("section", {}, this.facts([["Took", h("b", {}, duration(s.end - s.start))], ["From", this.when(s.start)], ["To", this.when(s.end)], ["For", this.taskLink(s.task, s.start)]]))];
  }

  message(s) {
    return [this.header(s.text, `message, ${LEVELS[s.level] ?? s.level}`), h("section", {}, this.facts([["At", this.when(s.time)], ["By", this.taskLink(s.task, s.time)]]))];
  }

  // --- a range, a row --------------------------------------------------------------------------------

  async sums(start, end, tasks, signal) {
    const at = (ns) => this.outline.began + BigInt(Math.max(0, Math.round(ns)));
    return ask(path(this.session, `/sums${query({ start: at(start), end: at(end), tasks })}`), this.patiently(signal));
  }

  bars(sums) {
    const rows = [["running", sums.running, colours.running], ["runnable", sums.ready, colours.ready], ...Object.entries(sums.blocked).map(([reason, ns]) => [words(reason), ns, colours.state[CODE.BLOCKED + REASONS.findIndex((r) => r?.name === reason)]]), ["unknown", sums.unsure, colours.unsure]].filter(([, ns]) => ns);
    const total = rows.reduce((sum, [, ns]) => sum + ns, 0);
    rows.sort((a, b) => b[1] - a[1]);
    return h("div", { class: "bars", role: "table", "aria-label": "Time by state" }, rows.map(([name, ns, colour]) => h("div", { role: "row" },
      h("span", { role: "rowheader" }, name), h("span", { class: "track", role: "cell", "aria-hidden": "true" }, h("i", { style: { width: `${100 * ns / total}%`, background: colour } })), h("span", { class: "num", role: "cell", "data-sum": name, "data-ns": ns, title: `${count(ns)} ns` }, `${duration(ns)}  `, h("span", { class: "faint" }, percent(ns / total))))));
  }

  async range({ start, end }, signal) {
    const whole = await this.sums(start, end, null, signal);
    const row = this.timeline.rows[this.timeline.focus];
    const one = row?.kind === "task" ? await this.sums(start, end, String(row.task), signal) : null;
    const stalls = this.timeline.marks.stalls.filter(([a, b]) => a < end && b > start).sort((a, b) => b[1] - b[0] - a[1] + a[0]);
    const { begin, end: until } = this.outline.tasks;
    let alive = 0, created = 0;
    for (let i = 0; i < begin.length; i++) { if (begin[i] < end && until[i] >= start) alive++; if (begin[i] >= start && begin[i] < end) created++; }
    return [
      this.header(duration(end - start), "selection"),
      h("section", {}, this.facts([["From", this.when(start)], ["To", this.when(end)], ["Tasks", `${count(alive)} live in it, ${count(created)} created`], ["Steps", count(whole.steps)], ["Run loop", whole.running ? `${percent(whole.running / Math.max(1, this.outline.runs.length) / (end - start))} in steps` : null]])),
      h("section", { class: "tools" }, h("button", { onclick: () => this.timeline.fit() }, "zoom to it"), h("a", { class: "button", title: "A trace with the generations that reach into it: a second or so more at either end", ...this.go.cut(start, end) }, "download this part")),
      h("section", { "data-of": "all" }, h("h3", {}, "All tasks"), this.bars(whole)),
      one ? h("section", { "data-of": "task" }, h("h3", { dir: "auto" }, row.label), this.bars(one)) : null,
      stalls.length ? h("section", {}, h("h3", {}, "Long steps"), h("ul", { class: "list" }, stalls.slice(0, 20).map(([a, b, , task]) => h("li", {}, this.taskLink(task, a), h("small", {}, duration(b - a)))))) : null,
    ];
  }

  async row(row, signal) {
    const { outline, timeline } = this;
    if (row.kind === "task") {
      const i = row.place, { tasks } = outline, sums = await this.sums(0, outline.ended, String(row.task), signal);
      return [this.header(row.label, `task ${row.task}`),
        h("section", {}, this.facts([["Entry", outline.texts[tasks.entry[i]]], ["Parent", tasks.parent[i] ? this.taskLink(tasks.parent[i], tasks.begin[i]) : null], ["Nursery", tasks.nursery[i] || null], ["Created", tasks.flags[i] & 4 ? "before the trace" : this.when(tasks.begin[i])],
          ["Ended", tasks.flags[i] & 2 ? "in a gap of the trace" : tasks.flags[i] & 1 ? "lives at the end of the trace" : this.when(tasks.end[i])], ["Lived", h("b", {}, duration(tasks.end[i] - tasks.begin[i]))], ["Steps", count(sums.steps)], ["Children", outline.kids.get(i)?.length ? count(outline.kids.get(i).length) : null]])),
        h("section", { class: "tools" }, h("button", { onclick: () => { const pad = Math.max(10, (tasks.end[i] - tasks.begin[i]) * 0.05); timeline.show(tasks.begin[i] - pad, tasks.end[i] + pad); } }, "zoom to its life"), h("button", { onclick: () => this.go.task(row.task, tasks.begin[i]) }, "first step")),
        h("section", { "data-of": "task" }, h("h3", {}, "All of its life"), this.bars(sums))];
    }
    if (row.kind === "group") {
      const { begins, ends, most } = outline.population(row);
      const lives = row.members.map((i) => outline.tasks.end[i] - outline.tasks.begin[i]).sort((a, b) => a - b), at = (q) => lives[Math.min(lives.length - 1, Math.floor(q * lives.length))];
      return [this.header(row.label, "group of tasks"), h("section", {}, this.facts([["Tasks", count(row.members.length)], ["With all below", count(begins.length)], ["At once", `${count(most)} at most`], ["Ended", count(ends.length)], ["Lived", `${duration(at(0.5))} median, ${duration(at(0.99))} p99, ${duration(lives.at(-1))} most`]])),
        h("section", { class: "tools" }, h("button", { onclick: () => timeline.toggle(row) }, outline.isOpen(row) ? "close" : "show them"))];
    }
    const content = timeline.contents.get(row.row);
    if (row.kind === "counter") return [this.header(row.label, "counter"), h("section", {}, this.facts([["In view", content ? `${count(content.count)} values` : ""], ["From", row.scale ? amount(row.scale.low) : ""], ["To", row.scale ? amount(row.scale.high) : ""]]))];
    if (row.kind === "run") { const run = outline.runs.find(([proc]) => proc === row.proc); return [this.header(row.label, `run loop, proc ${row.proc}`), h("section", {}, this.facts([["From", this.when(run[2])], ["To", this.when(run[3])]]))]; }
    return [this.header(row.label || row.kind, row.kind), h("section", {}, this.facts([["In view", content ? count(content.count) : ""]]))];
  }
}
