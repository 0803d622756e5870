import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";
import type { Contract } from "./contract.js";
import { FramingError, SeqrecError, type Code } from "./errors.js";
import { narrowed, similar, type Filters } from "./filters.js";
import { ModelInfer, ModelReady } from "./protocol.js";
import { check, pack, unpack, type Outputs, type Row } from "./rows.js";

/** PEM files of an encrypted connection. */
export interface Tls {
  /** Who vouches for the server; left out: whom Node trusts. */
  ca?: string;
  /** This side's certificate, for a server that asks for one, and its key. */
  cert?: string;
  key?: string;
}

export interface ClientOptions {
  /** Encrypt the connection; `{}` for a server whose certificate Node trusts. */
  tls?: Tls;
  /** For calls that set none: 10 seconds. */
  deadlineMs?: number;
}

export interface CallOptions {
  /** How long the whole call may take, retries and pauses included. */
  deadlineMs?: number;
}

export interface RecommendOptions extends CallOptions {
  /** At most so many items a row. */
  k?: number;
}

export interface Item {
  id: string;
  score: number;
}

export interface Recommendation {
  /** Best first. */
  items: Item[];
  /** How much of the row the model knew; 0: the items are the cold start. */
  knownItems: number;
}

const TRIES = 3;
const FIRST_PAUSE_MS = 50;

/**
 * A connection to a Triton server; one is enough for a process.
 *
 * No rows are no request, and an empty answer. Every call may reject with a SeqrecError.
 */
export class Client {
  readonly #connection: grpc.Client;
  readonly #deadlineMs: number;

  /** Connects at the first call. Throws if a TLS file cannot be read. */
  constructor(
    readonly address: string,
    { tls, deadlineMs = 10_000 }: ClientOptions = {},
  ) {
    this.#deadlineMs = deadlineMs;
    this.#connection = new grpc.Client(address, credentials(tls), {
      "grpc.max_receive_message_length": -1,
      // A call to this machine would go through the proxy of the environment, too.
      "grpc.enable_http_proxy": /^(127\.|localhost:|\[::1\])/.test(address) ? 0 : 1,
    });
  }

  close(): void {
    this.#connection.close();
  }

  /** Whether the server serves the model. */
  ready(model: string, options?: CallOptions): Promise<boolean> {
    return this.#within(model, options, async (deadline) => {
      const { ready } = await this.#send(ModelReady, { name: model }, deadline);
      return ready;
    });
  }

  /** Each row's outputs as they are. */
  call(contract: Contract, rows: readonly Row[], options?: CallOptions): Promise<Outputs[]> {
    return this.#rows(contract, rows, options, (outputs) => outputs);
  }

  /**
   * Each row's best items, of a model that gives `item_ids`. The contract's `filtered` is asked if
   * there is a filter.
   */
  recommend(
    contract: Contract,
    rows: readonly Row[],
    options: RecommendOptions & Filters = {},
  ): Promise<Recommendation[]> {
    const asked = () => narrowed(contract, rows, options);
    return this.#asked(contract, asked, options, (outputs) => recommendation(outputs, options.k));
  }

  /**
   * For each list of ids the items nearest to them, by cosine; they themselves are left out. The
   * contract's `similarItems` is asked.
   */
  similar(
    contract: Contract,
    ids: readonly (readonly string[])[],
    options: RecommendOptions & Filters = {},
  ): Promise<Recommendation[]> {
    const asked = () => similar(contract, ids, options);
    return this.#asked(contract, asked, options, (outputs) => recommendation(outputs, options.k));
  }

  /** A score for each of a row's candidates, in their order. */
  score(contract: Contract, rows: readonly Row[], options?: CallOptions): Promise<number[][]> {
    return this.#rows(contract, rows, options, (outputs) => numbers(outputs, "scores"));
  }

  /** A vector for each row, of a model that gives an embedding. */
  encode(contract: Contract, rows: readonly Row[], options?: CallOptions): Promise<number[][]> {
    const found = contract.outputs.find(({ name }) => name.endsWith("_embedding"));
    return this.#rows(contract, rows, options, (outputs) =>
      numbers(outputs, found?.name ?? "embedding"),
    );
  }

  #rows<T>(
    contract: Contract,
    rows: readonly Row[],
    options: CallOptions | undefined,
    read: (outputs: Outputs) => T,
  ): Promise<T[]> {
    return this.#asked(contract, () => [contract, rows], options, read);
  }

  #asked<T>(
    { model }: Contract,
    asked: () => [Contract, readonly Row[]],
    options: CallOptions | undefined,
    read: (outputs: Outputs) => T,
  ): Promise<T[]> {
    return this.#within(model, options, async (deadline) => {
      const [contract, rows] = asked();
      const checked = check(contract, rows);
      const results: T[] = [];
      for (let start = 0; start < rows.length; start += contract.maxBatchSize) {
        const some = checked.slice(start, start + contract.maxBatchSize);
        const request = { model_name: contract.model, inputs: pack(contract, some) };
        const answer = await this.#send(ModelInfer, request, deadline);
        results.push(...unpack(contract, some, answer).map(read));
      }
      return results;
    });
  }

  async #within<T>(
    model: string,
    { deadlineMs = this.#deadlineMs }: CallOptions = {},
    work: (deadline: number) => Promise<T>,
  ): Promise<T> {
    try {
      return await work(Date.now() + deadlineMs);
    } catch (error) {
      if (error instanceof FramingError) {
        throw new SeqrecError(model, this.address, error.code, error.message);
      }
      const { code, details } = error as grpc.ServiceError;
      const name = grpc.status[code] as Code | undefined;
      throw name ? new SeqrecError(model, this.address, name, details, { cause: error }) : error;
    }
  }

  async #send<Request, Response>(
    method: grpc.MethodDefinition<Request, Response>,
    request: Request,
    deadline: number,
  ): Promise<Response> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#unary(method, request, deadline);
      } catch (error) {
        const pause = FIRST_PAUSE_MS * 2 ** (tries - 1) * (1 + Math.random());
        const again = (error as grpc.ServiceError).code === grpc.status.UNAVAILABLE;
        if (!again || tries === TRIES || Date.now() + pause >= deadline) throw error;
        await sleep(pause);
      }
    }
  }

  #unary<Request, Response>(
    { path, requestSerialize, responseDeserialize }: grpc.MethodDefinition<Request, Response>,
    request: Request,
    deadline: number,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      this.#connection.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        { deadline },
        (error, response) => (error ? reject(error) : resolve(response!)),
      );
    });
  }
}

function credentials(tls: Tls | undefined): grpc.ChannelCredentials {
  if (!tls) return grpc.credentials.createInsecure();
  const pem = (file: string | undefined) => (file === undefined ? null : readFileSync(file));
  return grpc.credentials.createSsl(pem(tls.ca), pem(tls.key), pem(tls.cert));
}

function recommendation(outputs: Outputs, k = Infinity): Recommendation {
  const [scores, known] = [numbers(outputs, "scores"), numbers(outputs, "known_items")];
  const ids = values(outputs, "item_ids") as string[];
  if (ids.length !== scores.length || known.length !== 1) {
    throw new FramingError("INTERNAL", "the answer's outputs do not fit together");
  }
  const items = ids.map((id, i) => ({ id, score: scores[i]! }));
  return { items: items.filter(({ id }, i) => id !== "" && i < k), knownItems: known[0]! };
}

function numbers(outputs: Outputs, name: string): number[] {
  return values(outputs, name) as number[];
}

function values(outputs: Outputs, name: string): string[] | number[] {
  const found = outputs[name];
  if (!found) throw new FramingError("INVALID_ARGUMENT", `the model gives no ${name}`);
  return found;
}
