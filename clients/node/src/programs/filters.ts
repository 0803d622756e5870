import type { Client, Contract, Filters } from "../index.js";
import type { Golden } from "./golden.js";
import type { Fails } from "./conformance.js";

type Cases = Record<string, () => Promise<string[]>>;

/** What filters and similar items have to do; none if the repository has no such graphs. */
export function filterCases(
  models: ReadonlyMap<string, Golden>,
  client: Client,
  nowhere: Client,
  flaky: Client | null,
  fails: Fails,
): Cases {
  const [plain, filtered, similarItems] = ["sasrec", "sasrec_filtered", "sasrec_similar_items"].map(
    (name) => models.get(name)?.contract,
  );
  if (!plain || !filtered || !similarItems) return {};
  const sasrec: Contract = { ...plain, filtered, similarItems };
  const attributes = filtered.inputs
    .map(({ name }) => /^allow_(.*)$/.exec(name)?.[1])
    .filter((name): name is string => name !== undefined && name !== "item_ids");

  const ids = async (history: string[], filters: Filters) => {
    const [answer] = await client.recommend(sasrec, [{ history_item_ids: history }], filters);
    return answer!.items.map(({ id }) => id);
  };
  const nearest = async (query: string[], filters: Filters) => {
    const [answer] = await client.similar(sasrec, [query], { k: 3, ...filters });
    return answer!.items.map(({ id }) => id);
  };
  const due = (what: string, found: string[], expected: string[]) =>
    found.join() === expected.join() ? [] : [`${what}: ${found} instead of ${expected}`];

  const found: Cases = {
    filters: async () => {
      const [first, second, ...others] = await ids([], {});
      const two = { allow: [first!, second!] };
      const unknown = attributes.map((name) => ({ where: { [name]: ["no such value"] } }));
      const wrong = [
        ...due("exclude", await ids([], { exclude: [first!] }).then((all) => all.slice(0, 9)), [
          second!,
          ...others.slice(0, 8),
        ]),
        ...due("seen", await ids([first!], two), [second!]),
        ...due("keepSeen", (await ids([first!], { ...two, keepSeen: true })).sort(), [
          ...[first!, second!].sort(),
        ]),
        ...due("both", await ids([], { ...two, exclude: [first!] }), [second!]),
      ];
      for (const filters of [{ allow: ["no such item"] }, ...unknown]) {
        wrong.push(...due(JSON.stringify(filters), await ids([], filters), []));
      }
      return wrong;
    },
    "similar items": async () => {
      const [first, second] = await ids([], {});
      const query = [first!, second!];
      const found = await nearest(query, {});
      return [
        ...(found.length === 3 ? [] : [`${found.length} items, 3 are due`]),
        ...found.filter((id) => query.includes(id)).map((id) => `${id} is similar to itself`),
        ...due("allow", await nearest([first!], { allow: query }), [second!]),
      ];
    },
    "empty filter": async () => {
      const refused: [string, Contract, Filters][] = [
        ["allow", sasrec, { allow: [] }],
        ["allow", sasrec, { allow: ["", "\0"] }],
        ["where.no_such", sasrec, { where: { no_such: ["a"] } }],
        ["filters", plain, { exclude: ["a"] }],
        ...attributes.map((name): [string, Contract, Filters] => [
          `where.${name}`,
          sasrec,
          { where: { [name]: [] } },
        ]),
      ];
      const wrong = await fails(
        "INVALID_ARGUMENT",
        () => nowhere.similar(sasrec, [["a"]], { allow: [] }),
        "allow",
      );
      for (const [said, contract, filters] of refused) {
        const call = () => nowhere.recommend(contract, [{}], filters);
        wrong.push(...(await fails("INVALID_ARGUMENT", call, said)));
      }
      return wrong;
    },
  };
  if (flaky) {
    // The server counts who is asked.
    const choice = { ...plain, model: "choice", filtered: { ...filtered, model: "choice_filtered" } };
    found["no filter"] = async () => {
      const rows = [{ history_item_ids: ["a"] }];
      await flaky.recommend(choice, rows);
      await flaky.recommend(choice, rows, { exclude: [], where: {}, keepSeen: false });
      await flaky.recommend(choice, rows, { exclude: ["a"] });
      return [];
    };
  }
  return found;
}
