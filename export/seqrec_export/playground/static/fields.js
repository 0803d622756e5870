// The fields of a request, as the served models take them.

import { ask, debounced, idOf, make, words } from "./dom.js";
import { picker } from "./picker.js";

const LABELS = {
  history_item_ids: "History, oldest first",
  candidate_ids: "Candidates to score",
  exclude_item_ids: "Exclude these items",
  allow_item_ids: "Only these items",
  keep_seen: "What the history holds may come back",
};

export function labelOf(name) {
  if (LABELS[name]) return LABELS[name];
  return name.startsWith("allow_") ? `Only of ${words(name.slice(6))}` : words(name);
}

export const isList = (field) => !field.follows && ["items", "texts"].includes(field.kind);
export const isNumber = (field) => ["number", "whole"].includes(field.kind);

// Fills `into` with one control a field; gives the pickers by name.
export function build(into, fields, { state, titles, model, changed }) {
  const pickers = new Map();
  const suggest = (name) => async (typed) =>
    ask(`api/suggest?${new URLSearchParams({ m: model(name), f: name, q: typed })}`);
  const alone = fields.filter((field) => !field.follows);
  into.replaceChildren(
    ...alone.map((field) => {
      if (field.name === "keep_seen") return box(field, state, changed);
      if (!isList(field)) return single(field, state, changed, suggest(field.name));
      const followers = fields.filter((other) => other.follows === field.name);
      const made = picker({
        name: field.name,
        label: labelOf(field.name),
        hint: field.kind === "items" ? "title or id" : "value",
        chosen: state.list(field.name),
        suggest: suggest(field.name),
        changed,
        named: titles,
        more: (i, text) =>
          followers.map((other) => follower(other, i, titles.get(text) ?? text, state, changed)),
        removed: (i) => followers.forEach((other) => state.list(other.name).splice(i, 1)),
      });
      pickers.set(field.name, made);
      return made.element;
    }),
    ...followersLists(fields, suggest),
  );
  return pickers;
}

function box(field, state, changed) {
  const id = idOf("field", field.name);
  const checked = state.get(field.name) === "1";
  const onchange = (event) => {
    state.set(field.name, ...(event.target.checked ? ["1"] : []));
    changed();
  };
  return make(
    "p",
    { className: "inline label" },
    make("input", { id, type: "checkbox", checked, onchange }),
    make("label", { htmlFor: id }, labelOf(field.name)),
  );
}

function single(field, state, changed, suggest) {
  const [id, listId, hintId] = ["field", "list", "hint"].map((kind) => idOf(kind, field.name));
  const list = make("datalist", { id: listId });
  const suggested = debounced(150, async () => fill(list, await suggest(input.value).catch(() => [])));
  const input = make("input", {
    id,
    ...entry(field),
    value: state.get(field.name),
    "aria-describedby": hintId,
    oninput: () => {
      state.set(field.name, input.value);
      if (!isNumber(field)) suggested();
      changed();
    },
  });
  if (!isNumber(field)) input.setAttribute("list", listId);
  return make(
    "div",
    {},
    make("label", { htmlFor: id }, labelOf(field.name)),
    make("p", { id: hintId, className: "hint" }, field.meaning),
    input,
    list,
  );
}

// A value of one event of the history.
function follower(field, i, item, state, changed) {
  const texts = state.list(field.name);
  const input = make("input", {
    ...entry(field),
    value: texts[i] ?? "",
    title: field.meaning,
    "aria-label": `${words(field.name)} of ${item}`,
    oninput: () => {
      while (texts.length < i) texts.push("");
      texts[i] = input.value;
      changed();
    },
  });
  if (!isNumber(field)) input.setAttribute("list", idOf("values", field.name));
  return make("label", {}, words(field.name.replace(/^history_/, "")), input);
}

function followersLists(fields, suggest) {
  return fields
    .filter((field) => field.follows && !isNumber(field))
    .map((field) => {
      const list = make("datalist", { id: idOf("values", field.name) });
      suggest(field.name)("").then((found) => fill(list, found), () => {});
      return list;
    });
}

function entry(field) {
  if (!isNumber(field)) return { type: "text", spellcheck: false };
  return { type: "number", step: field.kind === "whole" ? "1" : "any" };
}

function fill(list, found) {
  list.replaceChildren(...found.map(({ id }) => make("option", { value: id })));
}

// What a model is sent of the state: {row, filters}, and the names of what it does not take.
export function request(model, state, all) {
  const row = {};
  const filters = {};
  for (const field of model.inputs) {
    const value = valueOf(field, state);
    if (value !== null) row[field.name] = value;
  }
  for (const field of model.filters) {
    const value = field.name === "keep_seen" ? state.get("keep_seen") === "1" : valueOf(field, state);
    if (value) filters[field.name] = value;
  }
  const taken = new Set([...model.inputs, ...model.filters].map((field) => field.name));
  const ignored = all
    .filter(({ name }) => !taken.has(name) && state.list(name).some((text) => text !== ""))
    .map(({ name }) => name);
  return { row, filters, ignored };
}

function valueOf(field, state) {
  const texts = state.list(field.name);
  const number = (text) => (text === "" || text === undefined ? null : Number(text));
  if (field.follows) {
    const values = Array.from(state.list(field.follows), (_, i) => texts[i] ?? "");
    if (values.every((text) => text === "")) return null;
    return isNumber(field) ? values.map(number) : values;
  }
  if (isList(field)) return texts.length ? [...texts] : null;
  if (isNumber(field)) return number(texts[0]);
  return texts[0] || null;
}
