// Which rows there are and in what order: sections, tasks under their parents, groups of tasks of one name.

import { column } from "./msgpack.js";

const ROW = 22, SECTION = 24, COUNTER = 44, RUN = 26;
const MANY = 8;  // children of one name that become a group

/** The outline of a session, as the service gives it, with typed arrays. */
export class Outline {
  constructor(data, before = null) {
    Object.assign(this, data);
    this.began = BigInt(data.began);
    this.wall = data.wall === null ? null : BigInt(data.wall);
    const t = data.tasks;
    this.tasks = {
      count: t.count, omitted: t.omitted, task: column(t.task, Float64Array), parent: column(t.parent, Float64Array), nursery: column(t.nursery, Float64Array),
      proc: column(t.proc, Int32Array), begin: column(t.begin, Float64Array), end: column(t.end, Float64Array), name: column(t.name, Int32Array),
      entry: column(t.entry, Int32Array), flags: column(t.flags, Uint8Array),
    };
    this.place = new Map();
    this.tasks.task.forEach((task, i) => this.place.set(task, i));
    this.opened = before ? before.opened : new Map();  // id -> whether it was opened or closed by hand
    this.kids = this.family();
    this.sections = this.build();
    this.flatten();
  }

  name(task) {
    const i = this.place.get(task);
    return i === undefined ? (task ? `task ${task}` : "") : this.texts[this.tasks.name[i]] || `task ${task}`;
  }

  /** task place -> places of its children, in order of nursery and time; -1: those without a parent that is known. */
  family() {
    const { task, parent, nursery, begin, count } = this.tasks;
    const order = Array.from({ length: count }, (_, i) => i).sort((a, b) => nursery[a] - nursery[b] || begin[a] - begin[b] || task[a] - task[b]);
    const kids = new Map();
    for (const i of order) {
      const p = this.place.get(parent[i]);
      const key = p === undefined || p === i ? -1 : p;
      const list = kids.get(key);
      if (list) list.push(i); else kids.set(key, [i]);
    }
    return this.unlooped(kids);
  }

  /** A circle of parents, which only damage makes, would hide its tasks: they are put at the top. */
  unlooped(kids) {
    const seen = new Uint8Array(this.tasks.count), stack = [...(kids.get(-1) ?? [])];
    const visit = () => { while (stack.length) { const i = stack.pop(); if (seen[i]) continue; seen[i] = 1; stack.push(...(kids.get(i) ?? [])); } };
    visit();
    for (let i = 0; i < this.tasks.count; i++) {
      if (seen[i]) continue;
      const p = this.place.get(this.tasks.parent[i]);
      kids.set(p, kids.get(p).filter((k) => k !== i));
      kids.set(-1, [...(kids.get(-1) ?? []), i]);
      stack.push(i);
      visit();
    }
    return kids;
  }

  build() {
    const sections = [];
    const add = (id, label, children, open = true) => { if (children.length) sections.push({ id, kind: "section", label, depth: 0, height: SECTION, children, openByDefault: open, more: children.length > 1 ? String(children.length) : "" }); };
    const several = this.runs.length > 1;
    const loop = this.runs.map(([proc, name]) => ({ id: `r${proc}`, row: `r${proc}`, kind: "run", proc, label: several ? `${name || "run"} ${proc}` : name || "run", depth: 1, height: RUN }));
    if (this.collections) loop.push({ id: "gc", row: "gc", kind: "gc", label: "garbage collection", depth: 1, height: ROW });
    if (this.messages) loop.push({ id: "logs", row: "logs", kind: "logs", label: "messages", depth: 1, height: ROW });
    add("loops", "Run loop", loop);
    add("spans", "Spans", this.spans.map(([name, lanes]) => this.spanNode(name, lanes)));
    const tasks = this.nodesOf(-1, 1);
    if (tasks.length) sections.push({ id: "tasks", kind: "section", label: "Tasks", depth: 0, height: SECTION, children: tasks, openByDefault: true, more: this.tasks.count.toLocaleString("en-US") });
    add("threads", "Threads", this.threads.map(([proc, name]) => ({ id: `p${proc}`, row: `p${proc}`, kind: "thread", proc, label: name || `thread ${proc}`, depth: 1, height: ROW })));
    add("counters", "Counters", this.counters.map((name) => ({ id: `c${name}`, row: `c${name}`, kind: "counter", label: name, depth: 1, height: COUNTER })));
    return sections;
  }

  spanNode(name, lanes) {
    const label = this.texts[name] || "(no name)";
    const lane = (i) => ({ id: `s${name * 32 + i}`, row: `s${name * 32 + i}`, kind: "span", label: i ? "" : label, depth: i ? 2 : 1, height: ROW, lane: i, lanes });
    const first = lane(0);
    if (lanes > 1) Object.assign(first, { children: Array.from({ length: lanes - 1 }, (_, i) => lane(i + 1)), openByDefault: lanes <= 6, more: `${lanes === 32 ? "32+" : lanes} at once` });
    return first;
  }

  /** Nodes of the children of the task at `place`. */
  nodesOf(place, depth) {
    const nodes = [], kids = this.kids.get(place) ?? [], { name, nursery } = this.tasks;
    const perNursery = new Map();
    for (const i of kids) { const list = perNursery.get(nursery[i]); if (list) list.push(i); else perNursery.set(nursery[i], [i]); }
    const several = place >= 0 && perNursery.size > 1 && perNursery.size <= 64 && kids.length > perNursery.size;
    for (const [number, members] of perNursery) {
      const inside = this.grouped(members, place, number, several ? depth + 1 : depth, name);
      if (several) nodes.push({ id: `n${number}`, kind: "group", label: `nursery ${number}`, depth, height: ROW, members, children: inside, openByDefault: true, more: String(members.length), quiet: true });
      else nodes.push(...inside);
    }
    return nodes;
  }

  grouped(members, place, nursery, depth, name) {
    const byName = new Map();
    for (const i of members) { const list = byName.get(name[i]); if (list) list.push(i); else byName.set(name[i], [i]); }
    const nodes = [];
    for (const [key, list] of byName) {
      if (list.length <= MANY) { nodes.push(...list.map((i) => this.taskNode(i, depth))); continue; }
      nodes.push({
        id: `g${place}.${nursery}.${key}`, kind: "group", label: this.texts[key] || "(no name)", depth, height: ROW, members: list, openByDefault: false,
        more: `× ${list.length.toLocaleString("en-US")}`, make: () => list.map((i) => this.taskNode(i, depth + 1)),
      });
    }
    return nodes;
  }

  taskNode(i, depth) {
    const { task, name, flags } = this.tasks;
    const node = { id: `t${task[i]}`, row: `t${task[i]}`, kind: "task", place: i, task: task[i], label: this.texts[name[i]] || "(no name)", depth, height: ROW, more: flags[i] & 8 ? "raised" : String(task[i]), dead: !(flags[i] & 1), raised: Boolean(flags[i] & 8) };
    if (this.kids.has(i)) Object.assign(node, { make: () => this.nodesOf(i, depth + 1), openByDefault: depth < 12 });
    return node;
  }

  childrenOf(node) {
    if (!node.children && node.make) node.children = node.make();
    return node.children ?? [];
  }

  canOpen(node) { return Boolean(node.children || node.make); }
  isOpen(node) { return this.canOpen(node) && (this.opened.get(node.id) ?? node.openByDefault); }

  toggle(node, open = !this.isOpen(node)) {
    if (!this.canOpen(node)) return;
    this.opened.set(node.id, open);
    this.flatten();
  }

  /** Rows that are to be seen, from top to bottom, each with its `y`. */
  flatten() {
    const rows = [];
    let y = 0;
    const enter = (nodes, parent) => {
      for (const node of nodes) {
        node.y = y;
        node.parent = parent;
        y += node.height;
        rows.push(node);
        if (this.isOpen(node)) enter(this.childrenOf(node), node);
      }
    };
    enter(this.sections, null);
    this.rows = rows;
    this.height = y;
    this.byId = new Map(rows.map((row, i) => [row.id, i]));
  }

  /** The row at a height. */
  at(y) {
    let low = 0, high = this.rows.length;
    while (low < high) { const middle = (low + high) >> 1; if (this.rows[middle].y + this.rows[middle].height <= y) low = middle + 1; else high = middle; }
    return low;
  }

  /** Open whatever hides the row of a task; gives its place among the rows, -1 if there is none. */
  reveal(task) {
    let i = this.place.get(task);
    if (i === undefined) return -1;
    const chain = [];
    for (let seen = 0; i !== undefined && seen < 1000; seen++) { chain.unshift(i); const parent = this.place.get(this.tasks.parent[i]); i = parent === i ? undefined : parent; }
    const section = this.sections.find((s) => s.id === "tasks");
    this.opened.set("tasks", true);
    let nodes = section.children;
    for (const place of chain) {
      const found = this.seek(nodes, place);
      if (!found) break;
      if (place !== chain.at(-1)) { this.opened.set(found.id, true); nodes = this.childrenOf(found); }
    }
    this.flatten();
    return this.byId.get(`t${task}`) ?? -1;
  }

  seek(nodes, place) {
    for (const node of nodes) {
      if (node.place === place) return node;
      if (node.kind === "group" && node.members.includes(place)) { this.opened.set(node.id, true); return this.seek(this.childrenOf(node), place); }
    }
    return null;
  }

  /** Begins and ends, each in order, of the tasks of a group and all below them: how many live at a time follows from them. */
  population(node) {
    if (!node.population) {
      const places = [], stack = [...node.members];
      while (stack.length) { const i = stack.pop(); places.push(i); stack.push(...(this.kids.get(i) ?? [])); }
      const begins = Float64Array.from(places, (i) => this.tasks.begin[i]).sort();
      // who lives at the present end has not ended there
      const ends = Float64Array.from(places.filter((i) => !(this.tasks.flags[i] & 1)), (i) => this.tasks.end[i]).sort();
      node.population = { begins, ends, most: most(begins, ends) };
    }
    return node.population;
  }
}

function most(begins, ends) {
  let live = 0, top = 0, j = 0;
  for (const begin of begins) { while (j < ends.length && ends[j] <= begin) live--, j++; top = Math.max(top, ++live); }
  return top;
}

export function below(sorted, value) {
  let low = 0, high = sorted.length;
  while (low < high) { const middle = (low + high) >> 1; if (sorted[middle] <= value) low = middle + 1; else high = middle; }
  return low;
}
