import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseContract, type Contract, type Outputs, type Row, type Tensor } from "../index.js";

/** A model with the requests of its newest version. */
export interface Golden {
  contract: Contract;
  requests: Request[];
}

/** What was asked and what has to come, row by row. */
export interface Request {
  name: string;
  atol: number;
  rtol: number;
  rows: Row[];
  expected: Outputs[];
}

type Tensors = Record<string, { shape: [number, number]; data: (string | number)[] }>;

interface Entry {
  case: string;
  atol: number;
  rtol: number;
  inputs: Tensors;
  outputs: Tensors;
}

/**
 * Every model of a repository, by name. The requests hold tensors as they go over the wire: a client
 * has nothing to lay out, unless `laidOut` is false.
 */
export function readRepository(folder: string, laidOut = true): Map<string, Golden> {
  const names = readdirSync(folder).sort();
  const models = names.filter((name) => existsSync(join(folder, name, "contract.json")));
  return new Map(models.map((name) => [name, readModel(join(folder, name), laidOut)]));
}

function readModel(folder: string, laidOut: boolean): Golden {
  let contract = parseContract(readFileSync(join(folder, "contract.json"), "utf8"));
  if (laidOut) {
    const inputs = contract.inputs.map(({ alignedWith: _, ...input }) => input);
    contract = { ...contract, inputs };
  }
  const versions = readdirSync(folder).filter((name) => /^\d+$/.test(name));
  const newest = String(Math.max(...versions.map(Number)));
  const golden = JSON.parse(readFileSync(join(folder, newest, "golden.json"), "utf8"));
  const requests = (golden.requests as Entry[]).map((entry, i) => ({
    name: `${contract.model}, request ${i} (${entry.case})`,
    atol: entry.atol,
    rtol: entry.rtol,
    rows: rowsOf(contract.inputs, entry.inputs, (list, { size }) => (size === 1 ? list[0]! : list)),
    expected: rowsOf(contract.outputs, entry.outputs, (list) => list) as Outputs[],
  }));
  return { contract, requests };
}

function rowsOf<T>(
  tensors: readonly Tensor[],
  values: Tensors,
  given: (list: string[] | number[], tensor: Tensor) => T,
): Record<string, T>[] {
  const [batch] = values[tensors[0]!.name]!.shape;
  return Array.from({ length: batch }, (_, row) =>
    Object.fromEntries(
      tensors.map((tensor) => {
        const { shape, data } = values[tensor.name]!;
        const list = data.slice(row * shape[1], (row + 1) * shape[1]);
        // "NaN" and "Infinity" are strings in JSON.
        const typed = tensor.datatype === "BYTES" ? list.map(String) : list.map(Number);
        return [tensor.name, given(typed, tensor)];
      }),
    ),
  );
}

/** How a row's outputs differ from the file's. */
export function differences({ atol, rtol }: Request, expected: Outputs, actual: Outputs): string[] {
  const within = (value: number, wanted: number) =>
    Math.abs(value - wanted) <= atol + rtol * Math.abs(wanted);
  const same = (name: string, i: number): boolean => {
    const [value, wanted] = [actual[name]![i]!, expected[name]![i]!];
    if (value === wanted) return true;
    if (name === "known_items") return false;
    if (name !== "item_ids") return within(value as number, wanted as number);
    const place = (expected[name] as string[]).indexOf(value as string);
    const scores = expected["scores"] as number[];
    // One that the file has not can only have changed places with its last.
    return place >= 0
      ? within(scores[place]!, scores[i]!)
      : within(actual["scores"]![i] as number, scores.at(-1)!);
  };
  return Object.entries(actual).flatMap(([name, values]) => {
    const wanted = expected[name]!;
    if (values.length !== wanted.length) {
      return [`${name} has ${values.length} values, ${wanted.length} in the file`];
    }
    return [...values.keys()]
      .filter((i) => !same(name, i))
      .map((i) => `${name}[${i}] is ${values[i]}, ${wanted[i]} in the file`);
  });
}
