export { Client, type CallOptions, type ClientOptions, type RecommendOptions } from "./client.js";
export type { Item, Recommendation, Tls } from "./client.js";
export { parseContract, type Contract, type Datatype, type Tensor } from "./contract.js";
export { SeqrecError, type Code } from "./errors.js";
export type { Filters } from "./filters.js";
export type { Outputs, Row, Value } from "./rows.js";
export * from "./models/index.js";
