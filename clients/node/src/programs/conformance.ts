#!/usr/bin/env node
// Replays the golden requests of a repository against its server, and prints what came of it.
import { parseArgs } from "node:util";
import { Client, SeqrecError, type Code, type Contract, type Outputs, type Row } from "../index.js";
import { filterCases } from "./filters.js";
import { differences, readRepository, type Golden, type Request } from "./golden.js";

const { values: flags } = parseArgs({
  options: {
    url: { type: "string" },
    repository: { type: "string" },
    gone: { type: "string" },
    silent: { type: "string" },
    flaky: { type: "string" },
    layouts: { type: "string" },
    "tls-url": { type: "string" },
    "tls-ca": { type: "string" },
    "tls-cert": { type: "string" },
    "tls-key": { type: "string" },
  },
});
if (!flags.url || !flags.repository) {
  console.error("usage: conformance --url HOST:PORT --repository DIR [--gone HOST:PORT] ...");
  process.exit(2);
}

const models = readRepository(flags.repository);
if (!models.has("sasrec")) {
  console.error(`${flags.repository} has no sasrec, which the cases ask`);
  process.exit(2);
}
const client = new Client(flags.url);
const clients = [client];
const failures: string[] = [];
const milliseconds: number[] = [];
let [requests, passed] = [0, 0];

for (const { contract, requests: golden } of models.values()) {
  for (const request of golden) {
    const found = await replay(client, contract, request).catch((error) => [String(error)]);
    failures.push(...found.map((difference) => `${request.name}: ${difference}`));
    requests++;
    if (found.length === 0) passed++;
  }
}

const cases: Record<string, string> = {};
for (const [name, run] of Object.entries(plan())) {
  const found = await run().catch((error) => [String(error)]);
  failures.push(...found.map((difference) => `${name}: ${difference}`));
  cases[name] = found[0] ?? "ok";
}
clients.forEach((each) => each.close());

milliseconds.sort((a, b) => a - b);
const p50 = milliseconds[milliseconds.length >> 1] ?? 0;
const p50_ms = Math.round(p50 * 1000) / 1000;
console.log(JSON.stringify({ client: "node", requests, passed, p50_ms, cases, failures }));
process.exitCode = failures.length === 0 ? 0 : 1;

async function replay(to: Client, contract: Contract, request: Request): Promise<string[]> {
  const start = performance.now();
  const answers = await to.call(contract, request.rows);
  milliseconds.push(performance.now() - start);
  return compare(request, request.expected, answers);
}

function compare(request: Request, expected: Outputs[], answers: Outputs[]): string[] {
  return expected.flatMap((wanted, row) =>
    differences(request, wanted, answers[row]!).map((found) => `row ${row}: ${found}`),
  );
}

/** The cases that the flags allow; each gives what went wrong. */
function plan(): Record<string, () => Promise<string[]>> {
  const { contract, requests } = models.get("sasrec")!;
  const row = { history_item_ids: ["a", "b"] };
  const named = (model: string) => ({ ...contract, model });
  const open = (...options: ConstructorParameters<typeof Client>) => {
    clients.push(new Client(...options));
    return clients.at(-1)!;
  };
  // INVALID_ARGUMENT from an address where nothing listens: the request was never sent.
  const nowhere = open("127.0.0.1:1");
  const refused = (wrong: Row) => fails("INVALID_ARGUMENT", () => nowhere.call(contract, [wrong]));

  const found: Record<string, () => Promise<string[]>> = {
    "all rows in one call": async () => {
      const differing: string[] = [];
      for (const golden of models.values()) differing.push(...(await allRows(golden)));
      return differing;
    },
    "unknown model": () =>
      fails("NOT_FOUND", () => client.call(named("no_such_model"), [row]), "no_such_model"),
    "wrong dtype": () => {
      const [history] = contract.inputs;
      const wrong: Contract = { ...contract, inputs: [{ ...history!, datatype: "FP32" }] };
      return fails("INVALID_ARGUMENT", () => client.call(wrong, [{ history_item_ids: [1, 2] }]));
    },
    "unknown input": () => refused({ ...row, no_such_input: "a" }),
    "wrong value": async () => [
      ...(await refused({ history_item_ids: "a" })),
      ...(await refused({ history_item_ids: [1] })),
      ...(await refused({ history_item_ids: ["\ud800"] })),
      ...(await tooLarge(nowhere)),
    ],
    "no rows": async () => ((await nowhere.call(contract, [])).length === 0 ? [] : ["an answer"]),
  };
  const { gone, silent, flaky, "tls-url": tlsUrl } = flags;
  const [ca, cert, key] = [flags["tls-ca"], flags["tls-cert"], flags["tls-key"]];
  if (gone) {
    found["server gone"] = () =>
      fails("UNAVAILABLE", () => open(gone).call(contract, [row]), "", 9000);
  }
  if (silent) {
    found["deadline"] = () =>
      fails(
        "DEADLINE_EXCEEDED",
        () => open(silent, { deadlineMs: 300 }).call(contract, [row]),
        "",
        9000, // less than a client's own deadline
      );
  }
  if (flaky) {
    const to = open(flaky);
    found["retries"] = async () => {
      const [answer] = await to.recommend(named("unavailable_twice"), [row]);
      const items = [
        { id: "a", score: 2 },
        { id: "b", score: 1 },
      ];
      const same = JSON.stringify(answer) === JSON.stringify({ items, knownItems: 1 });
      return [
        ...(same ? [] : [`the answer is ${JSON.stringify(answer)}`]),
        ...(await fails("UNAVAILABLE", () => to.call(named("unavailable"), [row]))),
        ...(await fails("INTERNAL", () => to.call(named("internal"), [row]))),
      ];
    };
    found["malformed answer"] = () => fails("INTERNAL", () => to.call(named("torn"), [row]));
  }
  if (flaky && flags.layouts) {
    const { contract, requests } = readRepository(flags.layouts, false).get("laid_out")!;
    // Lists that follow their histories, to a server that looks at what comes.
    found["laid out"] = async () => {
      const rows = requests.flatMap(({ rows }) => rows);
      const answers = await open(flaky).call(contract, rows);
      return requests.flatMap((request, i) => compare(request, request.expected, [answers[i]!]));
    };
  }
  Object.assign(found, filterCases(models, client, nowhere, flaky ? open(flaky) : null, fails));
  if (tlsUrl && ca && cert && key) {
    found["tls"] = async () => [
      ...(await replay(open(tlsUrl, { tls: { ca, cert, key } }), contract, requests[0]!)),
      ...(await fails("UNAVAILABLE", () =>
        open(tlsUrl, { tls: { cert, key } }).call(contract, [row]),
      )),
    ];
  }
  return found;
}

/** Numbers that a datatype cannot hold; what it can has another outcome where nothing listens. */
async function tooLarge(nowhere: Client): Promise<string[]> {
  const asked = (datatype: "FP32" | "INT32", value: unknown) => () =>
    nowhere.call(
      { model: "m", maxBatchSize: 1, inputs: [{ name: "x", datatype, size: 1 }], outputs: [] },
      [{ x: value as number }],
    );
  const found: string[] = [];
  for (const value of [1e39, -1e39, 3.4028236e38, 10n ** 39n]) {
    found.push(...(await fails("INVALID_ARGUMENT", asked("FP32", value))));
  }
  for (const value of [2 ** 31, -(2 ** 31) - 1, 1.5, 2 ** 53, NaN, Infinity, 1n]) {
    found.push(...(await fails("INVALID_ARGUMENT", asked("INT32", value))));
  }
  for (const value of [3.4028235e38, Infinity, NaN]) {
    found.push(...(await fails("UNAVAILABLE", asked("FP32", value))));
  }
  return found;
}

/** Rows of every length in one call, through the method that the model is for. */
async function allRows({ contract, requests }: Golden): Promise<string[]> {
  const answers = await ask(
    contract,
    requests.flatMap(({ rows }) => rows),
  );
  return requests.flatMap((request) => {
    const expected = request.expected.map(withoutEmptyIds);
    const found = compare(request, expected, answers.splice(0, expected.length));
    return found.map((difference) => `${request.name}: ${difference}`);
  });
}

async function ask(contract: Contract, rows: Row[]): Promise<Outputs[]> {
  const gives = contract.outputs.map(({ name }) => name);
  if (gives.includes("item_ids")) {
    const answers = await client.recommend(contract, rows);
    return answers.map(({ items, knownItems }) => ({
      item_ids: items.map(({ id }) => id),
      scores: items.map(({ score }) => score),
      known_items: [knownItems],
    }));
  }
  if (gives.includes("scores")) {
    return (await client.score(contract, rows)).map((scores) => ({ scores }));
  }
  const [embedding] = gives.filter((name) => name.endsWith("_embedding"));
  return (await client.encode(contract, rows)).map((vector) => ({ [embedding!]: vector }));
}

function withoutEmptyIds(outputs: Outputs): Outputs {
  const ids = outputs["item_ids"] as string[] | undefined;
  if (!ids) return outputs;
  const items = ids.filter((id) => id !== "");
  return {
    ...outputs,
    item_ids: items,
    scores: outputs["scores"]!.slice(0, items.length) as number[],
  };
}

export type Fails = typeof fails;

async function fails(
  code: Code,
  call: () => Promise<unknown>,
  said = "",
  withinMs = Infinity,
): Promise<string[]> {
  const start = performance.now();
  const error: unknown = await call().then(
    () => undefined,
    (thrown) => thrown,
  );
  const took = performance.now() - start;
  if (!(error instanceof SeqrecError)) return [`${code} is due, found ${error ?? "an answer"}`];
  if (error.code !== code || !error.message.includes(said))
    return [`${code} is due, found ${error}`];
  return took <= withinMs ? [] : [`${code} after ${Math.round(took)} ms`];
}
