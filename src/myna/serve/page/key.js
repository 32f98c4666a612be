// The API key, where the server asks for one: typed into a dialog, kept while this tab is open, sent to this server alone.

import { t } from "./words.js";

const NAME = "myna.key";
let key = kept();
let asking = null; // one dialog, however many requests were refused

export class KeyRefused extends Error {}

/** What a request has to say of it. */
export function keyHeader() {
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** Ask for a key after the server said 401 to `sent`, the header of the request. False when the reader would rather not. */
export async function askForKey(sent) {
  if (sent.authorization !== keyHeader().authorization) return true; // another one was given meanwhile
  asking ??= ask(Boolean(sent.authorization)).finally(() => (asking = null));
  return asking;
}

function ask(wrong) {
  const dialog = document.getElementById("key");
  const field = dialog.querySelector("input");
  dialog.querySelector(".error").textContent = wrong ? t("keyUnknown") : "";
  field.value = "";
  return new Promise(resolve => {
    dialog.onsubmit = event => {
      event.preventDefault();
      dialog.close(field.value.trim());
    };
    dialog.onclose = () => {
      const given = dialog.returnValue;
      field.value = dialog.returnValue = "";
      if (given) keep(given);
      resolve(Boolean(given));
    };
    dialog.querySelector("button[type=button]").onclick = () => dialog.close("");
    dialog.showModal();
  });
}

function kept() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

function keep(given) {
  key = given;
  try {
    sessionStorage.setItem(NAME, given);
  } catch { /* storage is off: it is asked for again on the next load */ }
}
