import { status } from "@grpc/grpc-js";

/** The name of a gRPC status. */
export type Code = keyof typeof status;

/** Why a call has no answer. */
export class SeqrecError extends Error {
  override readonly name = "SeqrecError";

  constructor(
    readonly model: string,
    readonly address: string,
    readonly code: Code,
    /** What the server said, or what is wrong with a row. */
    readonly details: string,
    options?: ErrorOptions,
  ) {
    super(`${model} at ${address}: ${code}: ${details}`, options);
  }
}

/** What is wrong with a row or with an answer, as long as nobody knows who was asked. */
export class FramingError extends Error {
  constructor(
    readonly code: "INVALID_ARGUMENT" | "INTERNAL",
    message: string,
  ) {
    super(message);
  }
}
