// A field for several texts: typing shows suggestions, and what is chosen stands above it in a list.
// It is the combobox with a list of the ARIA Authoring Practices: the focus stays in the field.

import { debounced, idOf, make } from "./dom.js";

// `suggest(typed)` gives [{id, title, about}], `changed()` is called after `chosen` was changed,
// `more(i, text)` gives what stands next to a chosen one, `named(text)` its title.
export function picker({ name, label, hint, chosen, suggest, changed, more, named, removed }) {
  const [id, listId] = ["field", "list"].map((kind) => idOf(kind, name));
  let options = [];
  let active = -1;
  let asked = 0;

  const above = make("ol", { className: "chosen", "aria-label": `${label}: chosen` });
  const list = make("ul", { id: listId, role: "listbox", "aria-label": label, hidden: true });
  const field = make("input", {
    id,
    role: "combobox",
    type: "text",
    spellcheck: false,
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": listId,
    placeholder: hint,
    oninput: debounced(100, look),
    onclick: look,
    onblur: close,
    onkeydown: pressed,
  });

  async function look() {
    asked += 1;
    const number = asked;
    const typed = field.value.trim();
    const found = await suggest(typed).catch(() => []);
    if (number !== asked || document.activeElement !== field) return false;
    options = found.filter((option) => !chosen.includes(option.id));
    if (typed && !found.some((option) => option.id === typed)) {
      options.push({ id: typed, raw: true });
    }
    list.replaceChildren(
      ...options.map((option, i) =>
        make(
          "li",
          {
            id: `${listId}-${i}`,
            role: "option",
            onmousedown: (event) => event.preventDefault(), // which would take the focus
            onclick: () => pick(option),
          },
          ...shown(option),
        ),
      ),
    );
    list.hidden = options.length === 0;
    field.setAttribute("aria-expanded", String(!list.hidden));
    move(typed ? 0 : -1);
    return true;
  }

  function shown(option) {
    if (option.raw) return [`Use “${option.id}” as it is`];
    return [option.title ? `${option.title} ` : "", make("code", {}, option.id), about(option)];
  }

  function about({ attributes = {} }) {
    const values = Object.values(attributes).flat();
    return values.length ? ` ${values.join(", ")}` : "";
  }

  function move(to) {
    active = options.length ? to : -1;
    [...list.children].forEach((child, i) => {
      child.setAttribute("aria-selected", String(i === active));
      if (i === active) child.scrollIntoView({ block: "nearest" });
    });
    if (active >= 0) field.setAttribute("aria-activedescendant", `${listId}-${active}`);
    else field.removeAttribute("aria-activedescendant");
  }

  function close() {
    asked += 1; // what was asked before is too late
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    options = [];
    move(-1);
  }

  function pick(option) {
    close();
    field.value = "";
    chosen.push(option.id);
    if (option.title) named.set(option.id, option.title);
    refresh();
    changed();
  }

  function remove(i) {
    chosen.splice(i, 1);
    removed?.(i);
    refresh();
    changed();
    field.focus();
  }

  async function pressed(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      // Whoever types fast presses it before the suggestions are there.
      if (field.value.trim() && (list.hidden || !current()) && !(await look())) return;
      if (active >= 0) pick(options[active]);
    } else if (event.key === "Escape") {
      close();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden && !(await look())) return;
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (options.length) move((active + step + options.length) % options.length);
    } else if (event.key === "Backspace" && !field.value && chosen.length) {
      remove(chosen.length - 1);
    }
  }

  // Whether the suggestions are those for what now stands in the field.
  function current() {
    const typed = field.value.trim();
    return options.some((option) => option.raw && option.id === typed)
      || options.some((option) => option.id === typed);
  }

  function refresh() {
    above.replaceChildren(
      ...chosen.map((text, i) =>
        make(
          "li",
          {},
          make("span", { className: "name" }),
          make("button", { type: "button", onclick: () => remove(i) }, "×"),
          ...(more?.(i, text) ?? []),
        ),
      ),
    );
    mark([]);
  }

  // Says again what the chosen ones are called, and which are unknown. Their fields stay.
  function mark(strange) {
    [...above.children].forEach((row, i) => {
      const [text, title] = [chosen[i], named.get(chosen[i])];
      const unknown = strange.includes(text);
      row.classList.toggle("strange", unknown);
      row.firstChild.replaceChildren(
        ...(title ? [`${title} `] : []),
        make("code", {}, text),
        ...(unknown ? [" unknown"] : []),
      );
      row.querySelector("button").setAttribute("aria-label", `Remove ${title ?? text}`);
    });
  }

  refresh();
  const element = make(
    "div",
    { className: "picker" },
    make("label", { htmlFor: id }, label),
    above,
    field,
    list,
  );
  return { element, refresh, mark };
}
