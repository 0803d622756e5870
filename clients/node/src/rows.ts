import { inspect } from "node:util";
import type { Contract, Tensor } from "./contract.js";
import { codec } from "./datatypes.js";
import { FramingError } from "./errors.js";
import type { InferInput, InferResponse } from "./protocol.js";

/** What a row has for an input: one value if the contract's size is 1, else a list. */
export type Value = string | number | readonly string[] | readonly number[];

/** Values by the names of a model's inputs; what is left out is unknown. */
export type Row = Readonly<Record<string, Value | undefined>>;

/** Each output's values for one row, by name. */
export type Outputs = Record<string, string[] | number[]>;

type Values = readonly (string | number)[];

/** A row whose values were checked: a list for each input of the model. */
export type CheckedRow = ReadonlyMap<string, Values>;

/** An output of any length has a value for each of these. */
const CANDIDATES = "candidate_ids";

/** The rows as lists. Throws if one does not fit the contract. */
export function check(contract: Contract, rows: readonly Row[]): CheckedRow[] {
  const names = new Set(contract.inputs.map((input) => input.name));
  return rows.map((row, i) => {
    for (const name of Object.keys(row)) {
      if (!names.has(name)) {
        refuse(i, name, `is no input; the model takes ${[...names].join(", ")}`);
      }
    }
    const lists = new Map(
      contract.inputs.map((input) => [input.name, values(input, row[input.name], i)]),
    );
    return new Map(contract.inputs.map((input) => [input.name, laidOut(input, lists)]));
  });
}

/**
 * A list that follows a history as it goes over the wire: the value at place `size` - j belongs to
 * the history's j-th last event, and is unknown if there is none.
 */
function laidOut({ name, datatype, size, alignedWith }: Tensor, lists: CheckedRow): Values {
  const list = lists.get(name)!;
  if (alignedWith === undefined) return list;
  const history = lists.get(alignedWith) ?? [];
  // An empty id is padding. The server cuts an id at NUL, which may leave an empty one.
  const events = [...history.keys()].filter((i) => !/^(\0|$)/.test(String(history[i])));
  const { unknown } = codec(datatype);
  const last = events.slice(-size!).map((i) => list[i] ?? unknown);
  return [...Array<string | number>(size! - last.length).fill(unknown), ...last];
}

function values(input: Tensor, value: unknown, row: number): Values {
  const { accepts, expected } = codec(input.datatype);
  if (value === undefined || value === null) return [];
  const single = input.size === 1 && input.alignedWith === undefined;
  if (Array.isArray(value) === single) {
    const expected = single ? "one value" : "a list";
    refuse(row, input.name, `takes ${expected}, found ${shown(value)}`);
  }
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  const anyLength = input.size === null || input.alignedWith !== undefined;
  if (!anyLength && list.length !== 0 && list.length !== input.size) {
    refuse(row, input.name, `takes ${input.size} values, found ${list.length}`);
  }
  const bad = list.findIndex((item) => !accepts(item));
  if (bad >= 0) refuse(row, input.name, `takes ${expected}, found ${shown(list[bad])}`);
  return list as Values;
}

function refuse(row: number, input: string, problem: string): never {
  throw new FramingError("INVALID_ARGUMENT", `row ${row}, ${input}: ${problem}`);
}

function shown(value: unknown): string {
  const text = inspect(value, { breakLength: Infinity });
  return text.length <= 80 ? text : `${text.slice(0, 80)}...`;
}

/** The tensors of one request; lists are padded to the longest. */
export function pack(contract: Contract, rows: readonly CheckedRow[]): InferInput[] {
  return contract.inputs.map(({ name, datatype, size }) => {
    const { unknown, write } = codec(datatype);
    const lists = rows.map((row) => row.get(name)!);
    const width = size ?? Math.max(...lists.map((list) => list.length));
    const padded = lists.flatMap((list) => [
      ...list,
      ...Array<string | number>(width - list.length).fill(unknown),
    ]);
    return { name, datatype, shape: [rows.length, width], contents: write(padded) };
  });
}

/** Each row's outputs, without what `pack` added. Throws if the answer does not fit. */
export function unpack(
  contract: Contract,
  rows: readonly CheckedRow[],
  answer: InferResponse,
): Outputs[] {
  const results: Outputs[] = rows.map(() => ({}));
  for (const output of contract.outputs) {
    const { data, width } = find(output, answer, rows.length);
    results.forEach((result, i) => {
      const length = output.size === null ? rows[i]!.get(CANDIDATES)!.length : width;
      if (length > width) malformed(output, `${width} values a row, ${length} are due`);
      result[output.name] = data.slice(i * width, i * width + length) as string[] | number[];
    });
  }
  return results;
}

function find(
  output: Tensor,
  { outputs, raw_output_contents }: InferResponse,
  rows: number,
): { data: Values; width: number } {
  const at = outputs.findIndex(({ name }) => name === output.name);
  const [head, raw] = [outputs[at], raw_output_contents[at]];
  if (head === undefined || raw === undefined) malformed(output, "nothing");
  const [first, width] = head.shape;
  if (head.datatype !== output.datatype || first !== rows || width === undefined) {
    malformed(output, `${head.datatype} [${head.shape}], ${output.datatype} [${rows}, ...] is due`);
  }
  const data = codec(output.datatype).read(raw);
  if (data.length !== rows * width) {
    malformed(output, `${data.length} values for the shape [${head.shape}]`);
  }
  return { data, width };
}

function malformed(output: Tensor, found: string): never {
  throw new FramingError("INTERNAL", `the answer has for ${output.name} ${found}`);
}
