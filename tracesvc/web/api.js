// Asking the service. Answers that are pictures come as msgpack, the others as JSON.

import { decode } from "./msgpack.js";

/** What the service refused, and why. */
export class Problem extends Error {
  constructor(status, content) {
    super(content.detail || content.title || `status ${status}`);
    this.status = status;
    this.code = content.code ?? "";
  }
}

let onSignIn = null;
/** `f` is called when the service wants to know who asks, and resolves once it does. */
export function signInWith(f) { onSignIn = f; }

export async function request(path, options = {}) {
  const response = await fetch(path, { credentials: "same-origin", ...options });
  if (response.status === 401 && onSignIn && await onSignIn()) return request(path, options);
  if (response.ok) return response;
  let content = {};
  try { content = await response.json(); } catch { content = { title: response.statusText }; }
  throw new Problem(response.status, content);
}

export async function json(path, options) {
  return (await request(path, options)).json();
}

/** Asks until there is an answer; `progress` is told how much of a session is indexed meanwhile, 0 to 1. */
export async function ask(path, { signal, progress } = {}) {
  for (;;) {
    const response = await request(path, { signal });
    if (response.status !== 202) return decode(new Uint8Array(await response.arrayBuffer()));
    progress?.((await response.json()).indexed);
  }
}

export const session = (name, rest = "") => `v1/sessions/${encodeURIComponent(name)}${rest}`;

export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** Whether the service has a resource at all: things that it may not have are asked about before they are shown. */
export async function has(path) {
  try { return (await fetch(path, { credentials: "same-origin" })).ok; } catch { return false; }
}
