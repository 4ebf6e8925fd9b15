// The whole tree of tasks at an instant, with a slider through the session.

import { ask, query, session as path } from "./api.js";
import { h, swap } from "./dom.js";
import { CODE, colours, stateName } from "./theme.js";
import { clock, count, duration, instant, words } from "./units.js";

const ROW = 26, STEPS = 10000, SPARE = 10;

export class TaskTree {
  constructor(host, app, params) {
    Object.assign(this, { host, app });
    this.open = app.open;
    this.closedNodes = new Set();
    this.filter = "";
    const input = this.slider = h("input", { type: "range", min: 0, max: STEPS, value: STEPS, "aria-label": "Time in the session", oninput: () => this.seek(Number(input.value) / STEPS * this.open.outline.ended) });
    const find = h("input", { type: "search", placeholder: "Filter by name or reason", "aria-label": "Filter the tasks", oninput: () => { this.filter = find.value.trim().toLowerCase(); this.layout(); } });
    this.when = h("strong", {});
    this.counts = h("span", { class: "soft" });
    this.nodes = h("div", { style: { position: "relative" } });
    this.tree = h("div", { class: "tree", role: "tree", "aria-label": "Tasks at this instant", tabindex: "0", onscroll: () => this.draw(), onkeydown: (event) => this.key(event) }, this.nodes);
    const step = (text, label, by) => h("button", { "aria-label": label, title: label, onclick: () => this.seek(this.time + by * this.open.outline.ended / 200) }, text);
    swap(host, h("div", { class: "treeview" }, h("div", { class: "slider" }, input, h("div", { class: "line" }, step("‹", "Earlier", -1), this.when, step("›", "Later", 1), this.counts, h("span", { class: "gap" }), find, h("button", { onclick: () => app.go("timeline", this.around()) }, "on the timeline"))), this.tree));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.tree);
    this.onTheme = () => { this.drawn = ""; this.draw(); };
    addEventListener("theme", this.onTheme);
    this.restore(params);
  }

  close() { this.closed = true; this.observer.disconnect(); removeEventListener("theme", this.onTheme); clearTimeout(this.noting); }

  restore(params) {
    if (this.noted === String(params) && this.time !== undefined) return true;
    const at = params.get("at");
    // a session that is over has no tasks at its end
    this.seek(at === null ? this.open.outline.ended * (this.open.info.state === "live" ? 1 : 0.5) : Number(at), true);
    return true;
  }

  refreshed() { /* who looks at an instant is not dragged along */ }

  around() { const span = Math.max(1e6, this.open.outline.ended / 100); return { from: Math.floor(Math.max(0, this.time - span / 2)), to: Math.ceil(Math.min(this.open.outline.ended, this.time + span / 2)) }; }

  /** Show what is at a time; while the slider moves, the latest of the times asked for. */
  async seek(time, quiet = false) {
    this.time = Math.min(Math.max(0, Math.round(time)), Math.floor(this.open.outline.ended));
    this.slider.value = Math.round(this.time / Math.max(1, this.open.outline.ended) * STEPS);
    const { wall } = this.open.outline;
    this.when.textContent = instant(this.time, Math.max(1, this.open.outline.ended / 1e5)) + (wall === null ? "" : `   ${clock(wall + BigInt(this.time))}`);
    this.slider.setAttribute("aria-valuetext", this.when.textContent);
    this.noted = String(new URLSearchParams({ at: this.time }));
    this.open.memory.tasks = { at: this.time };
    if (!quiet) { clearTimeout(this.noting); this.noting = setTimeout(() => history.replaceState(null, "", `#/s/${encodeURIComponent(this.open.name)}/tasks?${this.noted}`), 200); }
    if (this.asking) { this.again = true; return; }
    this.asking = true;
    do {
      this.again = false;
      const wanted = this.time;
      try {
        const answer = await ask(path(this.open.name, `/instant${query({ at: this.open.at(wanted) })}`));
        if (this.closed) return;
        this.shown = wanted;
        this.data = answer;
        this.layout();
      } catch (error) { this.counts.textContent = error.message; }
    } while (this.again && !this.closed);
    this.asking = false;
  }

  /** The rows, in order: parents before their children. */
  layout() {
    const { outline } = this.open, { tasks } = outline, { data } = this;
    if (!data) return;
    const here = new Map(data.task.map((task, i) => [task, i]));
    const kids = new Map(), roots = [];
    data.task.forEach((task, i) => {
      const place = outline.place.get(task), parent = place === undefined ? 0 : tasks.parent[place];
      if (here.has(parent) && parent !== task) { const list = kids.get(parent); if (list) list.push(i); else kids.set(parent, [i]); } else roots.push(i);
    });
    const rows = [], seen = new Set(), fits = (i) => !this.filter || `${outline.name(data.task[i])} ${stateName(data.code[i])} ${data.place[i]} ${data.task[i]}`.toLowerCase().includes(this.filter);
    const enter = (list, depth) => {
      for (const i of list) {
        const stack = [[i, depth]];
        while (stack.length) {
          const [at, level] = stack.pop();
          if (seen.has(at)) continue;
          seen.add(at);
          const children = kids.get(data.task[at]) ?? [];
          if (fits(at)) rows.push({ i: at, depth: this.filter ? 0 : level, children: children.length });
          if (this.filter || !this.closedNodes.has(data.task[at])) for (let k = children.length - 1; k >= 0; k--) stack.push([children[k], level + 1]);
          else for (const child of children) seen.add(child);
        }
      }
    };
    enter(roots, 0);
    this.rows = rows;
    const byState = {};
    for (const code of data.code) { const name = code >= CODE.BLOCKED ? "waiting" : stateName(code); byState[name] = (byState[name] ?? 0) + 1; }
    this.counts.textContent = `${count(data.task.length)} tasks live: ${["running", "runnable", "waiting", "unknown"].filter((name) => byState[name]).map((name) => `${count(byState[name])} ${name}`).join(", ")}`;
    this.nodes.style.height = `${rows.length * ROW}px`;
    this.drawn = "";
    this.draw();
  }

  draw() {
    if (!this.rows) return;
    const { data } = this, { outline } = this.open;
    const first = Math.max(0, Math.floor(this.tree.scrollTop / ROW) - SPARE), past = Math.min(this.rows.length, Math.ceil((this.tree.scrollTop + this.tree.clientHeight) / ROW) + SPARE);
    const key = `${first} ${past} ${this.shown} ${this.focus}`;
    if (key === this.drawn) return;
    this.drawn = key;
    const chosen = this.rows[this.focus];
    if (chosen) this.tree.setAttribute("aria-activedescendant", `node-${data.task[chosen.i]}`); else this.tree.removeAttribute("aria-activedescendant");
    swap(this.nodes, this.rows.slice(first, past).map((row, k) => {
      const { i } = row, task = data.task[i], code = data.code[i], at = first + k, shape = code === CODE.RUNNING ? "" : code === CODE.READY ? " middle" : code === CODE.UNSURE ? " hatch" : " thin";
      const why = code >= CODE.BLOCKED ? words(stateName(code)) + (data.object[i] ? ` ${data.object[i]}` : "") : stateName(code);
      return h("div", { class: "node", role: "treeitem", "aria-level": row.depth + 1, "aria-expanded": row.children ? String(!this.closedNodes.has(task)) : false, "aria-selected": String(at === this.focus), id: `node-${task}`, "data-task": task, "data-code": code, style: { top: `${at * ROW}px` }, onclick: (event) => { if (event.target.closest(".twist")) this.toggle(task); else if (!getSelection().toString()) this.go(i); } },
        h("span", { class: "who label", style: { position: "static", paddingLeft: `${Math.min(row.depth, 14) * 16}px`, background: "none" }, "data-open": row.children > 0 && !this.closedNodes.has(task) }, h("span", { class: "twist", style: row.children ? {} : { visibility: "hidden" } }), h("span", { class: "text", dir: "auto" }, outline.name(task)), h("span", { class: "faint" }, String(task))),
        h("span", { class: "state" }, h("i", { class: `swatch${shape}`, style: code === CODE.UNSURE ? {} : { background: colours.state[code] } }), why),
        h("span", { class: "num soft", title: `since ${instant(data.since[i], 1e3)}` }, duration(this.shown - data.since[i])),
        h("span", { class: "mono soft", title: data.place[i] || false }, data.place[i] || (code === CODE.READY && data.waker[i] ? `woken by ${outline.name(data.waker[i])}` : "")));
    }));
  }

  toggle(task) { if (this.closedNodes.has(task)) this.closedNodes.delete(task); else this.closedNodes.add(task); this.layout(); }
  go(i) { this.app.go("timeline", { task: this.data.task[i], time: this.shown, ...this.around() }); }

  key(event) {
    if (!this.rows?.length) return;
    const at = this.focus ?? -1, row = this.rows[at];
    switch (event.key) {
      case "ArrowDown": this.focus = Math.min(at + 1, this.rows.length - 1); break;
      case "ArrowUp": this.focus = Math.max(at - 1, 0); break;
      case "ArrowRight": if (row && this.closedNodes.has(this.data.task[row.i])) this.toggle(this.data.task[row.i]); break;
      case "ArrowLeft": if (row?.children && !this.closedNodes.has(this.data.task[row.i])) this.toggle(this.data.task[row.i]); break;
      case "Enter": if (row) this.go(row.i); break;
      case ",": this.seek(this.time - this.open.outline.ended / 200); break;
      case ".": this.seek(this.time + this.open.outline.ended / 200); break;
      default: return;
    }
    event.preventDefault();
    const y = (this.focus ?? 0) * ROW;
    if (y < this.tree.scrollTop) this.tree.scrollTop = y;
    else if (y + ROW > this.tree.scrollTop + this.tree.clientHeight) this.tree.scrollTop = y + ROW - this.tree.clientHeight;
    this.draw();
  }
}

