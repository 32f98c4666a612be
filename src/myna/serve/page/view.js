// One message as DOM. A view shows a message of the conversation and is told to `refresh` when that changes.

import { copyText } from "./clipboard.js";
import { update } from "./markdown.js";
import { t } from "./words.js";

const LABELS = { copy: t("copy"), copied: t("copied") };

export function make(name, className = "", ...content) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

export function button(label, act, className = "quiet") {
  const made = make("button", className, label);
  made.type = "button";
  made.addEventListener("click", () => act(made));
  return made;
}

/** `actions`: {edit(text), regenerate()}; what the message's buttons do. */
export function messageView(message, actions) {
  return message.role === "user" ? userView(message, actions) : assistantView(message, actions);
}

function userView(message, actions) {
  const text = make("div", "text", message.content);
  const element = make("article", "user", text);
  element.setAttribute("aria-label", t("you"));
  element.append(make("div", "actions", button(t("edit"), () => editing(element, message, actions)), copyButton(message)));
  return { element, refresh() {} };
}

/** The message becomes a text field; sending it again answers anew from there. */
function editing(element, message, actions) {
  const before = [...element.childNodes];
  const field = make("textarea", "", message.content);
  field.value = message.content;
  field.rows = Math.min(12, message.content.split("\n").length + 1);
  const cancel = () => {
    element.classList.remove("editing");
    element.replaceChildren(...before);
  };
  const send = () => field.value.trim() && actions.edit(field.value.trim());
  field.addEventListener("keydown", event => {
    if (isSend(event)) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    }
  });
  element.classList.add("editing");
  element.replaceChildren(field, make("div", "actions", button(t("cancel"), cancel), button(t("save"), send, "primary")));
  field.focus();
}

/** Enter, but not the Enter that picks a word from an input method (keyCode 229 in browsers that end composing early). */
export function isSend(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

function assistantView(message, actions) {
  const reasoning = make("details", "reasoning", make("summary", "", t("thought")));
  const thoughts = make("div", "text");
  reasoning.append(thoughts);
  const text = make("div", "text");
  const waiting = make("p", "waiting", make("span", "dots"), t("waiting"));
  const note = make("p", "note");
  const alert = make("div", "error");
  alert.setAttribute("role", "alert");
  const stats = make("span", "stats");
  const footer = make("div", "actions", copyButton(message), button(t("regenerate"), actions.regenerate), stats);
  const element = make("article", "assistant", reasoning, text, waiting, note, alert, footer);

  function refresh() {
    const { streaming, error } = message;
    element.setAttribute("aria-busy", String(Boolean(streaming)));
    waiting.hidden = !streaming || Boolean(message.content || message.reasoning);
    reasoning.hidden = !message.reasoning;
    reasoning.firstChild.textContent = t(streaming && !message.content ? "thinking" : "thought");
    update(thoughts, message.reasoning ?? "", { streaming, labels: LABELS });
    update(text, message.content, { streaming, labels: LABELS });
    note.textContent = streaming || error ? "" : remark(message);
    alert.replaceChildren(...(error ? [make("p", "", error), button(t("retry"), actions.regenerate, "")] : []));
    stats.textContent = figures(message);
    footer.hidden = Boolean(streaming && !message.stats) || (Boolean(error) && !message.content);
    for (const child of footer.querySelectorAll("button")) child.hidden = Boolean(streaming);
  }
  refresh();
  return { element, refresh };
}

function copyButton(message) {
  return button(t("copy"), async pressed => {
    await copyText(message.content);
    pressed.textContent = t("copied");
    setTimeout(() => (pressed.textContent = t("copy")), 1500);
  });
}

/** What a reader should know about how the answer ended. */
function remark(message) {
  if (message.finish === "length") return t("lengthNote");
  if (message.calls?.length) return message.calls.map(name => t("callNote", name)).join(" ");
  return message.content || message.reasoning || message.finish === "stopped" ? "" : t("emptyNote");
}

/** "38 tokens · 21.4 tokens/s · first token after 0.31 s · prompt 120, 64 from cache" */
function figures({ stats, streaming, finish }) {
  if (!stats) return "";
  const { tokens, exact, first, seconds, prompt, cached } = stats;
  const about = exact ? "" : "≈ ";
  const parts = [about + t("tokens", tokens)];
  if (tokens > 1 && seconds > 0) parts.push(about + t("speed", ((tokens - 1) / seconds).toFixed(1)));
  parts.push(t("first", first.toFixed(2)));
  if (prompt) parts.push(t("prompt", prompt, cached));
  if (finish === "stopped" && !streaming) parts.push(t("stopped"));
  return parts.join(" · ");
}
