// The page: what the address says is shown, the bar above it, keys that hold everywhere.

import { ask, json, session as path, signInWith } from "./api.js";
import { h, swap, announce } from "./dom.js";
import { help } from "./help.js";
import { Live } from "./live.js";
import { downloads } from "./downloads.js";
import { Outline } from "./outline.js";
import { Reports } from "./reports.js";
import { Search } from "./search.js";
import { Sessions, markOf } from "./sessions.js";
import { Tail } from "./tail.js";
import { TaskTree } from "./tasktree.js";
import { TimelineView } from "./timelineview.js";
import { applyTheme, isDark, toggleTheme } from "./theme.js";
import { Commands } from "./commands.js";
import { Diff } from "./diff.js";
import { signIn } from "./login.js";

const TABS = [["timeline", "Timeline"], ["tasks", "Tasks"], ["reports", "Reports"], ["events", "Events"]];
const FIRST = 3000;  // ms that the first picture has for itself
const VIEWS = { timeline: TimelineView, tasks: TaskTree, reports: Reports, events: Tail };

/** A session that is open: what all its views share. */
class Open {
  constructor(name) {
    this.name = name;
    this.info = null;
    this.outline = null;
    this.live = null;
    this.memory = {};  // what a view wants to find again
  }

  at(ns) { return this.outline.began + BigInt(Math.max(0, Math.round(ns))); }

  /** Soon: what there is is roughly right, or only a part; `complete` makes it whole. */
  async load() {
    const [info, outline] = await Promise.all([json(path(this.name)), ask(path(this.name, "/outline?rough=true"))]);
    this.info = info;
    this.outline = new Outline(outline);
  }

  async refresh() {
    const before = this.outline;
    this.outline = new Outline(await ask(path(this.name, "/outline?rough=true")), before);
    if (this.outline.closed && this.info.state === "live") this.info = await json(path(this.name));
    return this.outline;
  }

  /** Until all of the session is indexed; `grown(outline)` is told when there is more to see, `progress(share)` how far it is. */
  async complete(progress, grown) {
    this.leaving = new AbortController();
    const { signal } = this.leaving;
    while (this.outline.indexed < 1) {
      progress(this.outline.indexed);
      const exactly = this.outline.rough;  // the overview has all rows already: better is only what is exact
      const data = await ask(path(this.name, `/outline${exactly ? "" : "?rough=true"}`), { signal, progress });
      this.outline = new Outline({ indexed: 1, rough: false, ...data }, this.outline);
      grown(this.outline);
    }
    progress(1);
  }

  close() { this.leaving?.abort(); this.live?.close(); }
}

const bar = document.getElementById("bar"), main = document.getElementById("main");
const app = { open: null, view: null, tab: "", indexed: 1, go };

/** Where an address leads: {session, tab, params}; {} is the list. */
function parsed() {
  const [where, search] = location.hash.replace(/^#\/?/, "").split("?");
  const plain = (text) => { try { return decodeURIComponent(text); } catch { return text; } };
  const [kind, name, tab, other] = where.split("/").map(plain);
  return { kind, session: kind === "s" ? name : "", tab: tab || "timeline", other: kind === "diff" ? [name, tab] : other, params: new URLSearchParams(search ?? "") };
}

export function address(session, tab, params) {
  const search = String(params instanceof URLSearchParams ? params : new URLSearchParams(params));
  return `#/s/${encodeURIComponent(session)}/${tab}${search ? `?${search}` : ""}`;
}

function go(tab, params = {}) { location.hash = address(app.open.name, tab, params); }

let turn = 0;

async function route() {
  const to = parsed(), mine = ++turn;
  if (app.view && app.open?.name === to.session && app.tab === to.tab && app.view.restore?.(to.params)) return;
  app.view?.close();
  app.view = null;
  if (app.open && app.open.name !== to.session) { app.open.close(); app.open = null; }
  app.tab = to.tab;
  if (!to.session) {
    document.title = "tracesvc";
    drawBar();
    app.view = to.kind === "diff" ? new Diff(main, ...to.other) : new Sessions(main, { commands: new Commands() });
    return;
  }
  try {
    if (!app.open) {
      const open = new Open(to.session);
      const text = h("div", {}, "Opening the session"), done = h("progress", { max: 1, value: 0, "aria-label": "Indexed" });
      swap(main, h("div", { class: "progress" }, text, done));
      await open.load();
      if (mine !== turn) { open.close(); return; }
      app.open = open;
      app.indexed = open.outline.indexed;
      // Whoever wants a certain place, or other than the picture, is shown it when it is there.
      const wait = !open.outline.rough && (to.tab !== "timeline" || to.params.size > 0);
      const complete = () => open.complete((share) => { indexing(share); done.value = share; if (share < 1) text.textContent = `Indexing the session, ${Math.floor(share * 100)} %`; }, (outline) => { if (app.open === open) app.view?.grown?.(outline); });
      if (wait) { await complete(); if (mine !== turn) return; } else open.later = complete;
    }
    document.title = `${app.open.outline.source.name || app.open.name.slice(0, 8)} · tracesvc`;
    drawBar();
    app.view = new (VIEWS[to.tab] ?? TimelineView)(main, app, to.params);
    if (app.open.info.state === "live" && !app.open.live) { app.open.live = new Live(app); }
    app.open.live?.attach(app.view);
    if (app.open.later) {  // first what is to be seen now, then the index: they would be in each other's way
      const { open } = app, { later } = open;
      open.later = null;
      Promise.race([app.view.timeline?.ready(), new Promise((go) => setTimeout(go, FIRST))]).then(() => (app.open === open ? later() : null))
        .catch((error) => { if (error.name !== "AbortError") { indexing(1); app.view?.failed?.(error); } });
    }
  } catch (error) {
    if (mine !== turn) return;
    drawBar();
    swap(main, h("div", { class: "page" }, h("div", { class: "column" }, h("div", { class: "card empty" }, h("h1", {}, error.status === 404 ? "There is no such session" : "The session cannot be shown"), h("p", {}, error.message), h("p", {}, h("a", { href: "#/" }, "All sessions"))))));
    if (!error.status) throw error;
  }
}

/** How much of the session is indexed: until all is, the bar says so. */
function indexing(share) {
  app.indexed = share;
  if (!app.indexing) return;
  app.indexing.hidden = share >= 1;
  app.indexing.querySelector("progress").value = share;
  app.indexing.querySelector("span").textContent = `indexing ${Math.floor(share * 100)} %`;
}

function drawBar() {
  const { open, tab } = app;
  const theme = h("button", { class: "quiet", title: "Dark or light (t)", "aria-label": isDark() ? "Light theme" : "Dark theme", onclick: flip }, isDark() ? "☀" : "☾");
  const about = h("button", { class: "quiet", title: "Keys (?)", "aria-label": "Keys", onclick: help }, "?");
  const brand = h("a", { class: "brand", href: "#/", title: "All sessions" }, h("img", { src: "icon.svg", alt: "" }), h("span", {}, "tracesvc"), h("b", { class: "unseen" }, ", all sessions"));
  if (!open) { swap(bar, brand, h("span", { class: "gap" }), theme, about); return; }
  const { source } = open.outline;
  app.mark = h("span", {}, markOf(open.info.state));
  app.search = new Search(app);
  app.indexing = h("div", { class: "indexing", hidden: true, title: "The picture becomes exact as the session is indexed" }, h("span", {}), h("progress", { max: 1, value: 0, "aria-label": "Indexed" }));
  indexing(app.indexed);
  swap(bar, brand, h("div", { class: "crumb" }, h(tab === "reports" ? "strong" : "h1", { dir: "auto" }, source.name || "(no name)"), h("span", {}, [source.host, source.pid ? `pid ${source.pid}` : ""].filter(Boolean).join(" "))), app.mark,
    h("nav", { class: "tabs", "aria-label": "Views" }, TABS.map(([key, text]) => h("a", { href: address(open.name, key, app.open.memory[key] ?? {}), "aria-current": key === tab ? "page" : false, "data-tab": key }, text))),
    app.indexing, h("span", { class: "gap" }), app.search.element, downloads(app), theme, about);
}

function flip() { toggleTheme(); drawBar(); announce(isDark() ? "Dark" : "Light"); if (app.open) app.open.live?.draw(); }

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea");
  if (typing && event.key !== "Escape") return;
  if (event.target.closest("dialog") && event.key !== "?") return;
  switch (event.key) {
    case "?": help(); break;
    case "t": flip(); break;
    case "/": if (!app.search) return; app.search.focus(); break;
    case "l": if (!app.open?.live) return; app.open.live.toggle(); break;
    case "1": case "2": case "3": case "4": { if (!app.open) return; const key = TABS[event.key - 1][0]; go(key, app.open.memory[key] ?? {}); break; }
    case "Escape": if (typing) typing.blur(); return;
    default: return;
  }
  event.preventDefault();
});

addEventListener("hashchange", route);
applyTheme();
signInWith(signIn);
route();

// For tests, and for the curious in the console: what is on the screen, in numbers.
globalThis.tracesvc = app;
