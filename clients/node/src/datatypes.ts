import type { Datatype } from "./contract.js";
import { FramingError } from "./errors.js";
import type { InferTensorContents } from "./protocol.js";

/** How values of one datatype are checked, written and read. */
interface Codec<T> {
  /** Stands for a value that the caller does not have. */
  readonly unknown: T;
  readonly expected: string;
  accepts(value: unknown): value is T;
  write(values: T[]): InferTensorContents;
  read(raw: Buffer): T[];
}

// With the flag, the halves of a whole pair are no surrogates.
const LONE_SURROGATE = /\p{Surrogate}/u;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const WIDTH = 4;

const bytes: Codec<string> = {
  unknown: "",
  expected: "text that has UTF-8",
  accepts: (value): value is string => typeof value === "string" && !LONE_SURROGATE.test(value),
  write: (values) => ({ bytes_contents: values.map((text) => Buffer.from(text)) }),
  read: (raw) => {
    const texts: string[] = [];
    for (let at = 0; at < raw.length;) {
      const start = at + WIDTH;
      at = start <= raw.length ? start + raw.readUInt32LE(at) : Infinity;
      if (at > raw.length) throw new FramingError("INTERNAL", "the answer's strings end too early");
      texts.push(utf8(raw.subarray(start, at)));
    }
    return texts;
  },
};

const fp32: Codec<number> = {
  unknown: NaN,
  expected: "numbers that FP32 can hold",
  accepts: (value): value is number =>
    typeof value === "number" && (!Number.isFinite(value) || Number.isFinite(Math.fround(value))),
  write: (values) => ({ fp32_contents: values }),
  read: (raw) => numbers(raw, (at) => raw.readFloatLE(at)),
};

const int32: Codec<number> = {
  unknown: 0,
  expected: "whole numbers that INT32 can hold",
  accepts: (value): value is number => typeof value === "number" && (value | 0) === value,
  write: (values) => ({ int_contents: values }),
  read: (raw) => numbers(raw, (at) => raw.readInt32LE(at)),
};

const CODECS: Readonly<Record<Datatype, Codec<string> | Codec<number>>> = {
  BYTES: bytes,
  FP32: fp32,
  INT32: int32,
};

/** The codec of a datatype; its values are what the codec itself accepted or read. */
export function codec(datatype: Datatype): Codec<string | number> {
  return CODECS[datatype] as Codec<string | number>;
}

function numbers(raw: Buffer, read: (at: number) => number): number[] {
  if (raw.length % WIDTH !== 0) {
    throw new FramingError("INTERNAL", "the answer's numbers end too early");
  }
  return Array.from({ length: raw.length / WIDTH }, (_, i) => read(i * WIDTH));
}

function utf8(raw: Buffer): string {
  try {
    return UTF8.decode(raw);
  } catch {
    throw new FramingError("INTERNAL", "the answer has text that is no UTF-8");
  }
}
