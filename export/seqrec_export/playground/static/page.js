// The page: which models there are, the request, and the answers to it. The link holds the state.

import { count, show, time } from "./answers.js";
import { ask, debounced, make } from "./dom.js";
import { build, request } from "./fields.js";
import { State } from "./state.js";

const TOP = "10";
const at = (id) => document.getElementById(id);
const titles = new Map(); // of ids, as far as answers and suggestions told them
let models = []; // empty: they have to be asked for again
let state = new State(location.hash.slice(1));
let pickers = new Map();
let asked = 0;
let standing = ""; // what the link asks for and nobody serves
let looked = false; // whether similar items were asked for just now

const places = () =>
  [state.get(".model"), state.get(".with")]
    .map((key) => models.find((model) => model.key === key))
    .filter(Boolean);

// Each field of the chosen models, once.
function fields(kind) {
  const found = new Map(places().flatMap((model) => model[kind].map((field) => [field.name, field])));
  return [...found.values()];
}

async function load() {
  try {
    models = await ask("api/models");
    if (!models.length) throw new Error("The server has no model that ranks items.");
  } catch (error) {
    failed(error);
    return;
  }
  draw();
}

function draw() {
  const strange = [".model", ".with"]
    .map((name) => state.get(name))
    .filter((key) => key && !models.some((model) => model.key === key));
  if (!models.some((model) => model.key === state.get(".model"))) state.set(".model", models[0].key);
  if (!models.some((model) => model.key === state.get(".with"))) state.set(".with");
  const options = models.map(({ key, label }) => make("option", { value: key }, label));
  at("model").replaceChildren(...options);
  at("with").replaceChildren(
    make("option", { value: "" }, "nothing"),
    ...options.map((option) => option.cloneNode(true)),
  );
  at("model").value = state.get(".model");
  at("with").value = state.get(".with");
  at("top").value = state.get(".top") || TOP;
  // Suggestions are those of the first chosen model that has the field.
  const model = (name) => {
    const has = ({ inputs, filters }) => [...inputs, ...filters].some((field) => field.name === name);
    return (places().find(has) ?? places()[0]).place.model;
  };
  const focused = document.activeElement?.id;
  const rest = { state, titles, model, changed };
  const filters = fields("filters");
  pickers = new Map([
    ...build(at("inputs"), fields("inputs"), rest),
    ...build(at("filters"), filters, rest),
  ]);
  if (focused) at(focused)?.focus();
  at("narrowed").hidden = filters.length === 0;
  standing = strange.length ? `Not served: ${strange.join(", ")}.` : "";
  answer();
}

function changed() {
  keep();
  later();
}

const later = debounced(120, () => (models.length ? answer() : load()));

function keep() {
  const text = state.toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", `#${text}`);
}

async function answer() {
  asked += 1;
  const number = asked;
  keep();
  const all = [...fields("inputs"), ...fields("filters")];
  const top_k = Math.min(1000, Math.max(1, Math.trunc(Number(state.get(".top"))) || Number(TOP)));
  const similar = state.get(".similar");
  at("answers").setAttribute("aria-busy", "true");
  try {
    const panes = await Promise.all(
      places().map(async (model) => {
        const { row, filters, ignored } = request(model, state, all);
        const { place } = model;
        const found = await ask("api/recommend", { place, row, filters, top_k });
        const pane = { model, row, filters, ignored, answer: found, similar: null };
        if (similar && model.similar) {
          const near = await ask("api/similar", { place, ids: [similar], filters, top_k });
          pane.similar = { id: similar, title: near.titles[similar], answer: near };
        }
        return pane;
      }),
    );
    if (number !== asked) return;
    problem(standing);
    for (const pane of panes) remember(pane.answer);
    for (const [name, picked] of pickers) {
      picked.mark(panes[0].answer.unknown[name] ?? []);
    }
    show(at("answers"), panes, act, new Set(pickers.keys()));
    if (looked) document.querySelector(".similar h3")?.focus(); // which brings it into view
    looked = false;
    at("status").textContent = panes
      .map(({ answer: of }) => `${of.graph}: ${count(of.items.length)} in ${time(of)}`)
      .join("; ");
  } catch (error) {
    if (number === asked) failed(error);
  } finally {
    at("answers").removeAttribute("aria-busy");
  }
}

function remember(found) {
  for (const [id, title] of Object.entries(found.titles)) titles.set(id, title);
  for (const { id, title } of found.items) if (title) titles.set(id, title);
}

// What a button of an item does.
function act(what, { id }) {
  if (what === "similar") {
    state.set(".similar", ...(id ? [id] : []));
    looked = id !== "";
  } else if (!state.list(what).includes(id)) {
    state.list(what).push(id);
    pickers.get(what)?.refresh();
  }
  changed();
}

function failed(error) {
  models = [];
  at("answers").replaceChildren();
  at("status").textContent = "";
  problem(error.message);
}

function problem(text) {
  at("why").textContent = text;
  at("problem").hidden = !text;
}

function chosen(name, id) {
  at(id).addEventListener("change", (event) => {
    state.set(name, ...(event.target.value ? [event.target.value] : []));
    keep();
    if (models.length) draw();
    else load();
  });
}

chosen(".model", "model");
chosen(".with", "with");
at("top").addEventListener("input", (event) => {
  state.set(".top", event.target.value);
  changed();
});
at("request").addEventListener("submit", (event) => event.preventDefault());
at("again").addEventListener("click", load);
at("clear").addEventListener("click", () => {
  state.clear();
  keep();
  if (models.length) draw();
  else load();
});
at("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(location.href).catch(() => {});
  at("copy").textContent = "Copied";
  setTimeout(() => (at("copy").textContent = "Copy link"), 1500);
});
window.addEventListener("hashchange", () => {
  state = new State(location.hash.slice(1));
  if (models.length) draw();
  else load();
});
load();
