// Signing in: where a service wants a token, it is asked for here and kept in a cookie that scripts do not see.

import { h } from "./dom.js";

let asked = null;

/** Asks for a token until the service takes one; resolves to whether it did. One dialog, however many ask at once. */
export function signIn() {
  asked ??= ask().finally(() => { asked = null; });
  return asked;
}

function ask() {
  const field = h("input", { type: "password", name: "token", autocomplete: "current-password", required: true,
    "aria-label": "Token", spellcheck: "false" });
  const said = h("p", { class: "refused", role: "alert" });
  const form = h("form", {},
    h("h2", {}, "This service wants a token"),
    h("p", {}, "With the scope read, or more: tracesvc token create --scope read"),
    field, said,
    h("button", { type: "submit" }, "Sign in"));
  const dialog = h("dialog", { class: "login", "aria-label": "Sign in" }, form);
  document.body.append(dialog);
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const answer = await fetch("v1/login", { method: "POST", credentials: "same-origin",
        body: JSON.stringify({ token: field.value.trim() }) }).catch(() => null);
      if (!answer?.ok) {
        said.textContent = !answer ? "The service does not answer." : answer.status === 401 ? "The service does not know this token." : `The service refuses: ${answer.statusText || answer.status}.`;
        field.select();
        return;
      }
      dialog.remove();
      resolve(true);
    });
    dialog.addEventListener("cancel", () => { dialog.remove(); resolve(false); });
  });
}
