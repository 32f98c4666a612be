// The side panel: system prompt, sampling, and what the server says about the model.

import { make } from "./view.js";
import { t } from "./words.js";

// [field, lowest, highest, step]; the server checks again and says more.
const FIELDS = [
  ["temperature", 0, 2, 0.05],
  ["top_p", 0, 1, 0.01],
  ["top_k", 0, 1000, 1],
  ["max_tokens", 1, 1_000_000, 1],
  ["seed", 0, Number.MAX_SAFE_INTEGER, 1],
];
const PLACEHOLDERS = { max_tokens: t("asManyAsFit"), seed: t("random") };

/** Fills the panel from `state` and writes what is changed back into it; `changed` is called after. */
export function settingsPanel(panel, state, changed) {
  const system = panel.querySelector("#system");
  const inputs = new Map(FIELDS.map(field => [field[0], numberInput(...field)]));
  panel.querySelector("#sampling").append(...[...inputs].map(([name, input]) => make("label", "field", make("span", "", t(name)), input)));
  system.value = state.system;
  system.addEventListener("input", () => {
    state.system = system.value;
    changed();
  });
  for (const [name, input] of inputs) {
    input.value = state.sampling[name] ?? "";
    input.addEventListener("input", () => {
      if (input.value === "" || Number.isNaN(input.valueAsNumber)) delete state.sampling[name];
      else state.sampling[name] = input.valueAsNumber;
      changed();
    });
  }
  panel.querySelector("#reset").addEventListener("click", () => {
    state.sampling = {};
    for (const input of inputs.values()) input.value = "";
    changed();
  });
  return {
    /** Show a model's own values in grey, and what it is. */
    describe(model) {
      for (const [name, input] of inputs) input.placeholder = model.defaults?.[name] ?? PLACEHOLDERS[name] ?? "";
      panel.querySelector("#about").replaceChildren(...facts(model));
    },
  };
}

function numberInput(name, min, max, step) {
  const input = make("input");
  Object.assign(input, { type: "number", name, min, max, step, inputMode: step < 1 ? "decimal" : "numeric" });
  return input;
}

function facts(model) {
  const rows = [[t("model"), model.id]];
  if (model.context_length) rows.push([t("context"), `${model.context_length.toLocaleString()} ${t("tokensUnit")}`]);
  for (const [name, value] of Object.entries(model.details ?? {})) {
    rows.push([name.replaceAll("_", " "), typeof value === "object" ? JSON.stringify(value) : String(value)]);
  }
  return rows.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]);
}
