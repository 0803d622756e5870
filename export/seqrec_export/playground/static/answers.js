// What a model answered, as a list with what can be done with each item.

import { make } from "./dom.js";
import { labelOf } from "./fields.js";

// `answers` has one {model, answer, similar, ignored} a pane, `act(what, item)` does what is clicked;
// `fields` are the names of the lists that an item can be put into.
export function show(into, panes, act, fields) {
  const focused = document.activeElement?.dataset?.key;
  const within = into.contains(document.activeElement);
  into.replaceChildren(
    ...panes.map((pane, i) => {
      const others = panes.length > 1 ? panes[1 - i].answer.items : [];
      return make(
        "section",
        { className: "pane", "aria-label": pane.model.label },
        make("h2", { tabIndex: -1 }, pane.model.label),
        ...said(pane),
        items(pane, pane.answer, `${i}`, { others, act, fields }),
        pane.similar && nearest(pane, i, { act, fields }),
      );
    }),
  );
  if (!within) return;
  const again = [...into.querySelectorAll("[data-key]")].find((e) => e.dataset.key === focused);
  (again ?? into.querySelector("h2"))?.focus();
}

function nearest({ similar, model }, i, { act, fields }) {
  const { id, title, answer } = similar;
  const close = make(
    "button",
    { type: "button", "data-key": `${i} close`, onclick: () => act("similar", { id: "" }) },
    "Close",
  );
  const heading = `Similar to ${title || id}`;
  return make(
    "section",
    { className: "pane similar", "aria-label": heading },
    make("h3", { tabIndex: -1 }, heading),
    ...said({ answer, model, near: true, ignored: [] }),
    items({ model }, answer, `${i} similar`, { others: [], act, fields }),
    close,
  );
}

// Sentences about the answer.
function said({ answer, ignored, filters = {}, row = {}, model, near = false }) {
  const lines = [`${count(answer.items.length)} in ${time(answer)}, from ${answer.graph}.`];
  if (answer.known === 0) {
    const history = model.inputs.some(({ name }) => name === "history_item_ids");
    if (near) lines.push("The model does not know this item: these are popular ones.");
    else if (history) lines.push("The model knows nothing of the history: this is its cold start.");
    else lines.push("The model does not know the id of the request.");
  } else if (answer.known !== null && !near) {
    lines.push(`Ids that the model knew: ${answer.known}.`);
  }
  for (const [name, texts] of Object.entries(answer.unknown)) {
    lines.push(`Unknown in “${labelOf(name)}”: ${texts.join(", ")}.`);
  }
  const history = row.history_item_ids?.length;
  if (history && model.filters.some(({ name }) => name === "keep_seen") && !filters.keep_seen) {
    lines.push("What the history holds is left out.");
  }
  if (ignored.length) {
    lines.push(`Not for this model, and not sent: ${ignored.map(labelOf).join(", ")}.`);
  }
  if (model.inputs.some(({ name }) => name === "candidate_ids") && !row.candidate_ids && !near) {
    lines.push("This model scores candidates; give some.");
  }
  return lines.map((line) => make("p", { className: "said" }, line));
}

export const count = (number) => (number === 1 ? "1 item" : `${number} items`);
export const time = (answer) => `${answer.milliseconds.toFixed(1)} ms`;

function items({ model }, answer, pane, { others, act, fields }) {
  return make(
    "ol",
    { className: "items" },
    ...answer.items.map((item, rank) => {
      const name = item.title || item.id;
      const button = (what, text, label) =>
        make(
          "button",
          {
            type: "button",
            "data-key": `${pane} ${what} ${item.id}`,
            "aria-label": `${label} ${name}`,
            onclick: () => act(what, item),
          },
          text,
        );
      const there = others.findIndex(({ id }) => id === item.id);
      return make(
        "li",
        { "data-id": item.id },
        make("span", { className: "rank" }, `${rank + 1}`),
        make(
          "span",
          { className: "what" },
          item.title ? `${item.title} ` : "",
          make("code", {}, item.id),
          there >= 0 ? make("span", { className: "elsewhere" }, ` no. ${there + 1} there`) : null,
        ),
        make("span", { className: "score" }, item.score === null ? "unknown" : item.score.toFixed(4)),
        make(
          "span",
          { className: "more" },
          ...Object.entries(item.attributes).flatMap(([attribute, values]) =>
            values.map((value) => make("span", { className: "value", title: attribute }, value)),
          ),
          model.similar ? button("similar", "Similar", "Items similar to") : null,
          fields.has("history_item_ids") ? button("history_item_ids", "+ History", "To the history:") : null,
          fields.has("exclude_item_ids") ? button("exclude_item_ids", "Exclude", "Exclude") : null,
        ),
      );
    }),
  );
}
