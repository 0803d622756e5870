// What the page shows, and the link that holds it: names of inputs, and names of ours with a dot.

const OWN = [".model", ".with", ".top", ".similar"];

export class State {
  constructor(text = "") {
    this.values = new Map(); // name -> list of texts
    for (const [name, value] of new URLSearchParams(text)) this.list(name).push(value);
  }

  list(name) {
    if (!this.values.has(name)) this.values.set(name, []);
    return this.values.get(name);
  }

  get(name) {
    return this.values.get(name)?.[0] ?? "";
  }

  set(name, ...texts) {
    this.values.set(name, texts);
  }

  // Everything but which models are asked, and for how many.
  clear() {
    for (const name of [...this.values.keys()]) {
      if (!OWN.includes(name) || name === ".similar") this.values.delete(name);
    }
  }

  toString() {
    const found = new URLSearchParams();
    for (const [name, texts] of this.values) {
      // A text that belongs to an item keeps its place, even if it is empty.
      const used = texts.some((text) => text !== "") ? texts : [];
      for (const text of used) found.append(name, text);
    }
    return found.toString();
  }
}
