/** How a tensor's values are written on the wire. */
export type Datatype = "BYTES" | "FP32" | "INT32";

/** An input or output of a model. */
export interface Tensor {
  readonly name: string;
  readonly datatype: Datatype;
  /** How many values a row has; null: any number. */
  readonly size: number | null;
  /**
   * The history that an input follows. A row has a list of any length then, parallel to the
   * history; on the wire it is laid out in `size` values, so that the last one belongs to the
   * history's last event that is no padding. For lists that are laid out already, leave it out.
   */
  readonly alignedWith?: string;
}

/** What a model takes and gives. */
export interface Contract {
  readonly model: string;
  /** How many rows the server takes in one request. */
  readonly maxBatchSize: number;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  /** What is asked instead if a call has filters. */
  readonly filtered?: Contract;
  /** What is asked for similar items. */
  readonly similarItems?: Contract;
}

interface Entry {
  name: string;
  datatype: Datatype;
  shape: [string, string | number];
  aligned_with?: string;
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

function tensor({ name, datatype, shape: [, size], aligned_with }: Entry): Tensor {
  const aligned = aligned_with === undefined ? {} : { alignedWith: aligned_with };
  return { name, datatype, size: typeof size === "number" ? size : null, ...aligned };
}
