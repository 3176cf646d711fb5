// What goes in and comes out.

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Payload = Record<string, Json>;

/** Finite numbers, as many as the collection's dimension; stored and compared as float32. */
export type Vector = Float32Array | readonly number[];

/** id: 1 to 512 bytes of UTF-8. payload: a JSON object of at most 1 MiB. */
export interface Point {
  id: string;
  vector: Vector;
  payload?: Payload;
}

export interface StoredPoint {
  id: string;
  vector: Float32Array;
  payload: Payload;
}

/**
 * score: a distance, smaller is nearer (1 - cos, the L2 norm, or minus the inner product). vector: only
 * when it was asked for. rerankScore: greater is better, 0 without reranking.
 */
export interface SearchResult {
  id: string;
  score: number;
  payload: Payload;
  vector?: Float32Array;
  rerankScore: number;
}

/**
 * Hits, and which share of the collection's shards they are from (all of them without timeoutMs). The counts
 * are not enumerable, so that the hits compare and print as the list they are.
 */
export interface SearchResults extends Array<SearchResult> {
  readonly shardsTotal: number;
  readonly shardsAnswered: number;
  /** How old the answer may be. */
  readonly stalenessMs: number;
}

export interface ShardStatus {
  shardId: number;
  /** The ids of workers; 64 bits, so text. */
  replicas: string[];
  leaderId: string;
  ready: boolean;
}

export interface CollectionStatus {
  name: string;
  dimension: number;
  distance: string;
  shards: ShardStatus[];
}

/** relevanceScore: 1 to 5, left out for none given. */
export interface FeedbackItem {
  resultId: string;
  relevanceScore?: number;
  clicked?: boolean;
  position?: number;
  comment?: string;
}

export type Distance = "cosine" | "euclidean" | "dot";

export interface ClientOptions {
  /** Milliseconds that a call with its retries may take; 30,000 unless told. */
  timeoutMs?: number;
  /** How often a read that failed with UNAVAILABLE is tried again; 3 unless told. */
  retries?: number;
  /** The pauses between are chosen at random below a bound that starts here and doubles up to 2,000; 50 unless told. */
  retryPauseMs?: number;
  /** Writes too. An upsert or delete that is done twice does no harm. */
  retryWrites?: boolean;
  /** Send a read a second time when it has not answered by then; the first answer counts. */
  hedgeAfterMs?: number;
  tls?: boolean;
  /** PEM; the system's certificates unless told. */
  rootCertificates?: Uint8Array;
  /** Compress requests. */
  gzip?: boolean;
  /** Go through the proxy that http_proxy and its like name, which the client otherwise pays no heed to. */
  useProxy?: boolean;
}

export interface CallOptions {
  signal?: AbortSignal;
}

export interface SearchOptions extends CallOptions {
  /** Up to 10,000; 10 unless told. */
  topK?: number;
  /** Text for the reranker. */
  query?: string;
  /** Leave out shards that have not answered by then. */
  timeoutMs?: number;
  includePayload?: boolean;
  includeVectors?: boolean;
  /** Compare with every point. */
  exact?: boolean;
  /** How much effort; 0 lets the server choose. */
  ef?: number;
  maxStalenessMs?: number;
}

export interface BatchOptions extends CallOptions {
  /** Points of a request; 256 unless told. */
  batchSize?: number;
  /** Requests under way at a time; 1 unless told. */
  concurrency?: number;
  /** Hears how many points are stored, after each request. */
  progress?: (stored: number) => void;
}

export interface FeedbackOptions extends CallOptions {
  query?: string;
  resultIds?: readonly string[];
  context?: Readonly<Record<string, string>>;
}
