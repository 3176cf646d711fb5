// The client of Vectron. See docs/clients/js.md.
export { VectronClient } from "./client.js";
export * from "./errors.js";
export type * from "./types.js";
