// All keys, on one sheet.

import { h } from "./dom.js";

const KEYS = [
  ["Timeline", [["w", "s", "zoom in, out, where the pointer is"], ["a", "d", "go left, right"], ["←", "→", "go left, right by a step"], ["+", "−", "zoom to half, to double"], ["0", "the whole session"], ["f", "what is selected fills the view"],
    ["drag", "select a stretch of time: its sums are shown"], ["Shift drag", "move along"], ["Ctrl wheel", "zoom where the pointer is"], ["m", "select what is in view"], ["Esc", "select nothing"]]],
  ["Rows", [["↑", "↓", "row by row"], ["Space", "open or close a task's children, a group"], ["Enter", "what the task does in the middle of the view"], ["[", "]", "the phase before, after the selected one"], ["Home", "End", "first, last row"]]],
  ["Page", [["1", "timeline"], ["2", "tasks in time"], ["3", "reports"], ["4", "events as they come"], ["/", "search"], ["l", "follow a live session, or stop following"], ["t", "dark or light"], ["?", "this sheet"]]],
];

let sheet = null;

export function help() {
  if (sheet?.open) { sheet.close(); return; }
  sheet?.remove();
  sheet = h("dialog", { "aria-labelledby": "keys" }, h("header", {}, h("h2", { id: "keys" }, "Keys"), h("button", { class: "quiet", "aria-label": "Close", onclick: () => sheet.close() }, "✕")),
    h("div", { class: "keys" }, KEYS.map(([title, rows]) => [h("h3", {}, title), rows.map((row) => h("div", {}, h("span", {}, row.at(-1)), h("span", {}, row.slice(0, -1).map((key) => [h("kbd", {}, key), " "]))))])));
  sheet.addEventListener("click", (event) => { if (event.target === sheet) sheet.close(); });
  document.body.append(sheet);
  sheet.showModal();
}
