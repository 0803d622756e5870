import type { Contract } from "./contract.js";
import { FramingError } from "./errors.js";
import type { Row } from "./rows.js";

/** What may come back; all of it holds together, for every row of a call. */
export interface Filters {
  /** These never come back. */
  exclude?: readonly string[];
  /** Only these may come back. */
  allow?: readonly string[];
  /** By attribute: only items with one of the values may come back. */
  where?: Readonly<Record<string, readonly string[] | undefined>>;
  /** Whether what the history holds may come back. */
  keepSeen?: boolean;
}

const QUERY = "query_item_ids";
const WHERE = "allow_"; // before an attribute's name
const SAID = new Map([
  ["exclude_item_ids", "exclude"],
  ["allow_item_ids", "allow"],
  ["keep_seen", "keepSeen"],
]);

/**
 * What to ask, and with which rows: the model itself if nothing filters, else its `filtered`.
 * Throws for a filter that the model lacks, and for a list of what is allowed that is empty.
 */
export function narrowed(
  contract: Contract,
  rows: readonly Row[],
  filters: Filters,
): [Contract, readonly Row[]] {
  const given = inputs(filters);
  if (given.size === 0) return [contract, rows];
  if (!contract.filtered) refuse(`${contract.model} has no filters`);
  const own = new Set(contract.inputs.map(({ name }) => name));
  return [contract.filtered, added(contract.filtered, given, rows, (name) => !own.has(name))];
}

/** The same for items to compare others with. */
export function similar(
  contract: Contract,
  ids: readonly (readonly string[])[],
  filters: Filters,
): [Contract, readonly Row[]] {
  const asked = contract.similarItems;
  if (!asked) refuse(`${contract.model} has no similar items`);
  const rows = ids.map((list) => ({ [QUERY]: list }));
  return [asked, added(asked, inputs(filters), rows, (name) => name !== QUERY)];
}

function added(
  asked: Contract,
  given: ReadonlyMap<string, readonly string[] | number>,
  rows: readonly Row[],
  filters: (name: string) => boolean,
): readonly Row[] {
  const taken = asked.inputs.map(({ name }) => name).filter(filters);
  for (const name of given.keys()) {
    if (taken.includes(name)) continue;
    refuse(`${asked.model} does not filter by ${said(name)}; it takes ${taken.map(said).join(", ")}`);
  }
  return rows.map((row) => ({ ...row, ...Object.fromEntries(given) }));
}

/** What is given, by the names of the inputs; an exclusion of nothing is none. */
function inputs({ exclude, allow, where = {}, keepSeen }: Filters): Map<string, string[] | number> {
  const given = new Map<string, string[] | number>();
  if (exclude !== undefined && list("exclude", exclude).length > 0) {
    given.set("exclude_item_ids", [...exclude]);
  }
  const allowed = Object.entries(where).map(([attribute, values]) => [WHERE + attribute, values]);
  for (const [name, values] of [["allow_item_ids", allow], ...allowed] as [string, unknown][]) {
    if (values === undefined) continue;
    const found = list(said(name), values);
    // An empty value is padding; the server cuts one at NUL.
    if (found.every((value) => /^(\0|$)/.test(value))) {
      refuse(
        `${said(name)} is a list without a value, which the server would take for no filter; leave ` +
          "it out if everything is allowed, and do not ask if nothing is",
      );
    }
    given.set(name, found);
  }
  if (keepSeen) given.set("keep_seen", 1);
  return given;
}

function list(name: string, value: unknown): string[] {
  if (!Array.isArray(value)) refuse(`${name} takes a list, found ${String(value)}`);
  return value;
}

/** An input as the option that gives it. */
function said(name: string): string {
  return SAID.get(name) ?? `where.${name.slice(WHERE.length)}`;
}

function refuse(problem: string): never {
  throw new FramingError("INVALID_ARGUMENT", problem);
}
