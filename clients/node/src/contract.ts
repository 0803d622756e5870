/** How a tensor's values are written on the wire. */
export type Datatype = "BYTES" | "FP32" | "INT32";

/** An input or output of a model. */
export interface Tensor {
  readonly name: string;
  readonly datatype: Datatype;
  /** How many values a row has; null: any number. */
  readonly size: number | null;
}

/** What a model takes and gives. */
export interface Contract {
  readonly model: string;
  /** How many rows the server takes in one request. */
  readonly maxBatchSize: number;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
}

interface Entry {
  name: string;
  datatype: Datatype;
  shape: [string, string | number];
}

/** The contract in the text of a `contract.json`. */
export function parseContract(json: string): Contract {
  const { model, max_batch_size, inputs, outputs } = JSON.parse(json);
  return {
    model,
    maxBatchSize: max_batch_size,
    inputs: inputs.map(tensor),
    outputs: outputs.map(tensor),
  };
}

function tensor({ name, datatype, shape: [, size] }: Entry): Tensor {
  return { name, datatype, size: typeof size === "number" ? size : null };
}
