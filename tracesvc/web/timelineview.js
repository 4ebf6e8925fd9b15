// The timeline as a view of a session: details beside it, its state in the address.

import { json, query, session as path } from "./api.js";
import { h } from "./dom.js";
import { partOf } from "./downloads.js";
import { Details } from "./details.js";
import { Timeline } from "./timeline.js";

export class TimelineView {
  constructor(host, app, params) {
    Object.assign(this, { host, app });
    const { open } = app;
    this.timeline = new Timeline(host, open.name, open.outline, {
      pick: (selection) => { this.details.show(selection); this.note(true); }, moved: () => { this.app.open.live?.looked(); this.note(); }, step: (by) => this.step(by),
    });
    this.side = h("aside", { class: "side", hidden: true, "aria-label": "Details" });
    this.timeline.element.append(this.side);
    this.details = new Details(this.side, this.timeline, open.name, {
      task: (task, time) => this.task(task, time), span: (id) => this.span(id), why: (span) => this.why(span), cut: (start, end) => partOf(open, start, end),
    });
    this.restore(params);
  }

  close() { clearTimeout(this.noting); this.timeline.close(); }

  // --- the address ---------------------------------------------------------------------------------

  /** Show what an address says; it is the same view. */
  restore(params) {
    if (this.noted === String(params)) return true;
    const { timeline } = this, number = (name) => (params.has(name) ? Number(params.get(name)) : NaN);
    const from = number("from"), to = number("to");
    if (to > from) timeline.show(from, to, true);
    const task = number("task"), time = number("time"), span = number("span");
    if (task > 0) {
      if (timeline.revealTask(task)) { if (time >= 0) { timeline.select({ kind: "phase", task, time, row: `t${task}` }); if (!(to > from)) this.centre(time); } else this.details.show({ kind: "row", row: timeline.rows[timeline.focus] }); }
    } else if (span > 0) this.span(span, !(to > from));
    else if (params.has("range")) { const [a, b] = params.get("range").split("-").map(Number); if (b > a) timeline.selectRange([a, b]); }
    else if (timeline.selection || timeline.range) { timeline.selection = null; timeline.range = null; this.details.show(null); timeline.dirty(); }
    if (params.has("path")) this.follow(params.get("path"));
    this.noted = String(params);
    return true;
  }

  /** Keep the address as it looks here; a selection is a step that one can go back from. */
  note(step = false) {
    clearTimeout(this.noting);
    this.noting = setTimeout(() => {
      const { timeline, app } = this, s = timeline.selection, params = new URLSearchParams();
      if (timeline.start > 0 || timeline.end < timeline.outline.ended) { params.set("from", Math.floor(timeline.start)); params.set("to", Math.ceil(timeline.end)); }
      if (s?.kind === "phase") { params.set("task", s.task); params.set("time", Math.round(s.time)); } else if (s?.kind === "span") params.set("span", s.id);
      else if (timeline.range) params.set("range", timeline.range.map(Math.round).join("-"));
      if (timeline.path && this.pathOf) params.set("path", this.pathOf);
      const text = String(params);
      if (text === this.noted) return;
      this.noted = text;
      app.open.memory.timeline = params;
      history[step ? "pushState" : "replaceState"](null, "", `#/s/${encodeURIComponent(app.open.name)}/timeline${text ? `?${text}` : ""}`);
    }, step ? 0 : 250);
  }

  // --- going places --------------------------------------------------------------------------------

  centre(time, span = this.timeline.span) { this.timeline.show(time - span / 2, time + span / 2); }

  task(task, time) {
    const { timeline } = this;
    if (!timeline.revealTask(task)) return;
    if (time === undefined) { this.details.show({ kind: "row", row: timeline.rows[timeline.focus] }); return; }
    time = Math.min(Math.max(time, 0), timeline.outline.ended);
    if (time < timeline.start || time > timeline.end) this.centre(time);
    timeline.select({ kind: "phase", task, time, row: `t${task}` });
  }

  async span(id, centre = true) {
    const { timeline } = this, selection = { kind: "span", id };
    timeline.selection = selection;
    timeline.range = null;
    await this.details.show(selection);
    this.note(true);
    if (selection.start === undefined) return;
    timeline.outline.opened.set("spans", true);
    timeline.outline.opened.set(`s${Math.floor(Number(selection.row.slice(1)) / 32) * 32}`, true);
    timeline.outline.flatten();
    const i = timeline.outline.byId.get(selection.row);
    if (i !== undefined) { timeline.focus = i; timeline.scrollTo(timeline.rows[i], true); }
    if (centre && (selection.start < timeline.start || selection.end > timeline.end)) { const pad = Math.max((selection.end - selection.start) * 0.4, 5); timeline.show(selection.start - pad, selection.end + pad); }
    timeline.dirty();
  }

  /** To the phase before or after the selected one. */
  step(by) {
    const s = this.timeline.selection;
    if (s?.kind === "phase" && s.start !== undefined) this.task(s.task, by < 0 ? s.start - 1 : s.end);
  }

  /** Draw the critical path of a span. */
  async why(span) { this.pathOf = `span:${span.id}`; await this.follow(this.pathOf); this.note(); }

  async follow(what) {
    const { app, timeline } = this;
    try {
      const id = what.replace(/^span:/, "");
      const answer = await json(path(app.open.name, `/why${query({ span: id })}`));
      const began = app.open.outline.began, at = (time) => Number(BigInt(time) - began);
      // a wait is told by what its waker did meanwhile, as far as that is known
      const flat = (pieces) => pieces.flatMap((piece) => (piece.kind === "waiting" && piece.parts?.length ? flat(piece.parts) : [{ kind: piece.kind, task: piece.task, name: piece.name, start: at(piece.start), end: at(piece.end) }]));
      timeline.path = flat(answer.path);
      for (const task of [...new Set(timeline.path.map((piece) => piece.task))].slice(0, 40)) timeline.outline.reveal(task);
      const start = at(answer.start), end = at(answer.end), pad = (end - start) * 0.05;
      timeline.selection = { kind: "span", id: answer.span, start, end };
      timeline.revealTask(answer.task);
      timeline.show(start - pad, end + pad);
      this.details.explain(answer, start);
    } catch (error) { timeline.trouble = error.message; timeline.dirty(); }
  }

  refreshed(outline) { this.timeline.replaceOutline(outline); }
  grown(outline) { this.timeline.replaceOutline(outline); }
  failed(error) { this.timeline.trouble = error.message; this.timeline.dirty(); }
}
