// The page: the conversation, sending, stopping, scrolling, keys.

import { answer, models } from "./api.js";
import { KeyRefused } from "./key.js";
import { settingsPanel } from "./settings.js";
import { load, save, switchTheme } from "./store.js";
import { isSend, messageView } from "./view.js";
import { translate } from "./words.js";

const $ = id => document.getElementById(id);
const AT_END = 48; // pixels from the end that still count as being there

const state = load();
let stopper = null; // AbortController of the answer being made
let views = [];

translate(document);
const panel = settingsPanel($("settings"), state, () => save(kept()));
for (const message of state.messages) show(message);
showState();
connectModels();

// What is kept while an answer is being made is that answer as a stopped one.
function kept() {
  const messages = state.messages.map(({ streaming, ...rest }) => (streaming ? { ...rest, finish: "stopped" } : rest));
  return { ...state, messages };
}

async function connectModels() {
  let found;
  try {
    found = await models();
  } catch (error) {
    // The server is starting, or gone: sending says so. Without a key, sending asks for it again, and nothing else does.
    if (!(error instanceof KeyRefused)) setTimeout(connectModels, 2000);
    return;
  }
  $("model").replaceChildren(...found.map(({ id }) => new Option(id, id)));
  if (found.some(({ id }) => id === state.model)) $("model").value = state.model;
  const describe = () => {
    state.model = $("model").value;
    panel.describe(found.find(({ id }) => id === state.model) ?? {});
  };
  $("model").onchange = () => {
    describe();
    save(kept());
  };
  describe();
}

/** Append a message's view. Its buttons act on wherever the message then is. */
function show(message) {
  const view = messageView(message, {
    edit: text => resend(state.messages.indexOf(message), text),
    regenerate: () => regenerate(state.messages.indexOf(message)),
  });
  views.push(view);
  $("messages").append(view.element);
  return view;
}

function cutFrom(index) {
  state.messages.length = index;
  for (const view of views.splice(index)) view.element.remove();
}

function resend(index, text) {
  stop();
  cutFrom(index);
  send(text);
}

function regenerate(index) {
  stop();
  cutFrom(index);
  complete();
}

function send(text) {
  const message = { role: "user", content: text };
  state.messages.push(message);
  show(message);
  complete();
}

function requestBody() {
  const said = state.messages.filter(({ role, content }) => role === "user" || content); // an answer that failed is no turn
  const messages = said.map(({ role, content }) => ({ role, content }));
  const system = state.system.trim() ? [{ role: "system", content: state.system }] : [];
  return { model: state.model || undefined, messages: [...system, ...messages], ...state.sampling };
}

/** Ask for the next message and show it as it comes. */
async function complete() {
  const body = requestBody();
  const message = { role: "assistant", content: "", reasoning: "", streaming: true };
  state.messages.push(message);
  const view = show(message);
  const mine = (stopper = new AbortController());
  const clock = stopwatch();
  const refresh = onNextFrame(() => following(view.refresh));
  showState();
  scrollToEnd();
  try {
    for await (const chunk of answer(body, mine.signal)) {
      take(message, chunk, clock);
      refresh();
    }
  } catch (error) {
    if (error.name === "AbortError") message.finish = "stopped";
    else message.error = error.message;
  }
  delete message.streaming;
  if (!message.error && !$("model").options.length) connectModels(); // it had no key
  if (stopper === mine) stopper = null;
  following(view.refresh);
  showState();
  save(kept());
}

/** Put one chunk of the stream into the message. */
function take(message, chunk, clock) {
  const choice = chunk.choices[0];
  if (choice) {
    const { content = "", reasoning_content: reasoning = "", tool_calls: calls = [] } = choice.delta;
    message.content += content ?? "";
    message.reasoning += reasoning ?? "";
    if (calls.length) message.calls = [...(message.calls ?? []), ...calls.map(call => call.function.name)];
    if (choice.finish_reason) message.finish = choice.finish_reason;
    if (content || reasoning) message.stats = clock.tick();
  }
  if (chunk.usage && message.stats) {
    const { completion_tokens: tokens, prompt_tokens: prompt, prompt_tokens_details: details } = chunk.usage;
    message.stats = { ...message.stats, tokens, prompt, cached: details?.cached_tokens ?? 0, exact: true };
  }
}

/** Seconds to the first piece and since; until the usage comes, a piece counts as a token. */
function stopwatch() {
  const began = performance.now();
  let first = 0, tokens = 0;
  return {
    tick() {
      const now = performance.now();
      first ||= now;
      tokens += 1;
      return { tokens, first: (first - began) / 1000, seconds: (now - first) / 1000, exact: false };
    },
  };
}

/** Call `act` at most once a frame. */
function onNextFrame(act) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      act();
    });
  };
}

function stop() {
  stopper?.abort();
  stopper = null;
}

function showState() {
  $("send").hidden = Boolean(stopper);
  $("stop").hidden = !stopper;
  $("welcome").hidden = state.messages.length > 0;
  document.body.classList.toggle("busy", Boolean(stopper));
}

// Scrolling: follow the answer only while the reader is at its end.

const log = $("log");

function isAtEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < AT_END;
}

function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
}

function following(act) {
  const wasAtEnd = isAtEnd();
  act();
  if (wasAtEnd) scrollToEnd();
  $("to-end").hidden = isAtEnd();
}

log.addEventListener("scroll", () => ($("to-end").hidden = isAtEnd()), { passive: true });
$("to-end").addEventListener("click", scrollToEnd);

// Writing and keys.

const input = $("input");

function fit() {
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight + 2, innerHeight * 0.4)}px`;
}

function submit() {
  const text = input.value.trim();
  if (!text || stopper) return;
  input.value = "";
  fit();
  send(text);
}

input.addEventListener("input", fit);
input.addEventListener("keydown", event => {
  if (!isSend(event)) return;
  event.preventDefault();
  submit();
});
$("composer").addEventListener("submit", event => {
  event.preventDefault();
  submit();
  input.focus();
});
$("stop").addEventListener("click", () => {
  stop();
  input.focus();
});
document.addEventListener("keydown", event => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (stopper) stop();
  else showSettings(false);
});

// The bar.

function showSettings(open) {
  if ($("settings").hidden === !open) return;
  $("settings").hidden = !open;
  $("open-settings").setAttribute("aria-expanded", String(open));
  (open ? $("close-settings") : $("open-settings")).focus();
}

$("open-settings").addEventListener("click", () => showSettings($("settings").hidden));
$("close-settings").addEventListener("click", () => showSettings(false));
$("theme").addEventListener("click", switchTheme);
$("new").addEventListener("click", () => {
  stop();
  cutFrom(0);
  showState();
  save(kept());
  input.focus();
});
addEventListener("pagehide", () => save(kept()));
scrollToEnd();
input.focus();
