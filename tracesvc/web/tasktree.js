import { h, swap } from "./dom.js";
export class TaskTree { constructor(host) { swap(host, h("div", { class: "treeview" })); } close() {} }
