// Tables that sort by a click on their heads.

import { h, swap } from "./dom.js";

/** columns: [{key, text, num, show, wide}]; rows: objects; `go(row)` is called for a click or Enter. */
export function table(columns, rows, { sort, go, most = 200, label, mark } = {}) {
  const body = h("tbody"), state = { key: sort?.[0] ?? columns[0].key, direction: sort?.[1] ?? 1, most };
  const heads = columns.map((column) => h("th", { scope: "col", class: `${column.num ? "num" : ""}${column.wide ? " wide" : ""}` }, h("button", {
    onclick: () => { state.direction = state.key === column.key ? -state.direction : column.num ? -1 : 1; state.key = column.key; draw(); },
  }, column.text)));
  const more = h("button", { class: "quiet", hidden: true, onclick: () => { state.most += 500; draw(); } });
  const draw = () => {
    const value = (row) => row[state.key] ?? -Infinity;
    const sorted = [...rows].sort((a, b) => { const x = value(a), y = value(b); return (x < y ? -1 : x > y ? 1 : 0) * state.direction; });
    columns.forEach((column, i) => { if (column.key === state.key) heads[i].setAttribute("aria-sort", state.direction > 0 ? "ascending" : "descending"); else heads[i].removeAttribute("aria-sort"); });
    swap(body, sorted.slice(0, state.most).map((row) => {
      const cells = columns.map((column, i) => {
        const content = column.show ? column.show(row[column.key], row) : row[column.key];
        const inner = !i && go ? h("button", { class: "link", dir: "auto", onclick: (event) => { event.stopPropagation(); go(row); } }, content) : content;
        return h("td", { class: `${column.num ? "num" : ""}${column.wide ? " wide" : ""}${!i ? " name" : ""}`, dir: !i && !go ? "auto" : false }, inner);
      });
      return h("tr", { class: `${go ? "go" : ""}${mark?.(row) ? " on" : ""}`, ...(go ? { onclick: () => { if (!getSelection().toString()) go(row); } } : {}) }, cells);
    }));
    more.hidden = sorted.length <= state.most;
    more.textContent = `Show more of ${sorted.length.toLocaleString("en-US")}`;
  };
  draw();
  return [h("table", { "aria-label": label ?? false }, h("thead", {}, h("tr", {}, heads)), body), more];
}
