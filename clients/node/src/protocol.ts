import { readFileSync } from "node:fs";
import type { MethodDefinition } from "@grpc/grpc-js";
import { loadFileDescriptorSetFromBuffer } from "@grpc/proto-loader";

/** The part of the protocol's messages that is used here. */
export interface InferTensorContents {
  bytes_contents?: Buffer[];
  fp32_contents?: number[];
  int_contents?: number[];
}

export interface InferInput {
  name: string;
  datatype: string;
  shape: number[];
  contents: InferTensorContents;
}

export interface InferRequest {
  model_name: string;
  inputs: InferInput[];
}

export interface InferResponse {
  outputs: { name: string; datatype: string; shape: number[] }[];
  raw_output_contents: Buffer[];
}

// Next to src/ and dist/ alike.
const PROTOSET = new URL("../inference.protoset", import.meta.url);

const service = loadFileDescriptorSetFromBuffer(readFileSync(PROTOSET), {
  keepCase: true,
  longs: Number,
  defaults: true,
  arrays: true,
})["inference.GRPCInferenceService"] as unknown as {
  ModelInfer: MethodDefinition<InferRequest, InferResponse>;
  ModelReady: MethodDefinition<{ name: string }, { ready: boolean }>;
};

export const { ModelInfer, ModelReady } = service;
