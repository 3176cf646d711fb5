// The client: one connection, calls with deadlines, reads that are tried again and hedged.
import * as grpc from "@grpc/grpc-js";
import { AbortedError, BatchError, VectronError, errorOf } from "./errors.js";
import type {
  BatchOptions, CallOptions, ClientOptions, CollectionStatus, Distance, FeedbackItem, FeedbackOptions, Point,
  SearchOptions, SearchResult, SearchResults, StoredPoint, Vector,
} from "./types.js";
import * as wire from "./wire.js";

const SERVICE = "/vectron.v1.VectronService/";
const MESSAGE_SIZE_MAX = 256 * 1024 * 1024;
const GZIP = 2;
const RETRY_PAUSE_MAX_MS = 2000; // so that a server that is back is soon found
// As numbers, which errors of the channel have.
const UNAVAILABLE: number = grpc.status.UNAVAILABLE;
const CANCELLED: number = grpc.status.CANCELLED;

const toBuffer = (data: Uint8Array): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
const asIs = (data: Buffer): Buffer => data;

/** A call that is under way. */
interface Started {
  answer: Promise<Buffer>;
  cancel: () => void;
}

export class VectronClient {
  readonly #client: grpc.Client;
  readonly #metadata = new grpc.Metadata();
  readonly #options: ClientOptions;
  readonly #timeoutMs: number;

  /** host: the gateway's gRPC address, HOST:PORT. token: an SDK token; VECTRON_TOKEN unless told. */
  constructor(host: string, token?: string, options: ClientOptions = {}) {
    const used = token ?? process.env.VECTRON_TOKEN ?? "";
    if (used === "") {
      throw new TypeError("a client needs an SDK token, as an argument or in VECTRON_TOKEN");
    }
    this.#metadata.set("authorization", `Bearer ${used}`);
    this.#options = options;
    this.#timeoutMs = options.timeoutMs ?? 30_000;
    const root = options.rootCertificates;
    this.#client = new grpc.Client(
      host,
      options.tls === true || root !== undefined
        ? grpc.credentials.createSsl(root === undefined ? null : toBuffer(root))
        : grpc.credentials.createInsecure(),
      {
        "grpc.max_send_message_length": MESSAGE_SIZE_MAX,
        "grpc.max_receive_message_length": MESSAGE_SIZE_MAX,
        // Calls decide themselves what is tried again.
        "grpc.enable_retries": 0,
        // Otherwise http_proxy would carry tokens elsewhere.
        "grpc.enable_http_proxy": options.useProxy === true ? 1 : 0,
        "grpc.initial_reconnect_backoff_ms": 50,
        "grpc.max_reconnect_backoff_ms": 1000,
        ...(options.gzip === true ? { "grpc.default_compression_algorithm": GZIP } : {}),
      },
    );
  }

  close(): void {
    this.#client.close();
  }

  // --- Collections

  async createCollection(name: string, dimension: number, distance: Distance = "cosine",
                         options: CallOptions = {}): Promise<void> {
    await this.#write("CreateCollection", wire.encodeCreate(name, dimension, distance), options);
  }

  async deleteCollection(name: string, options: CallOptions = {}): Promise<void> {
    await this.#write("DeleteCollection", wire.encodeName(name), options);
  }

  /** Sorted names. */
  async listCollections(options: CallOptions = {}): Promise<string[]> {
    return wire.decodeTexts(await this.#read("ListCollections", new Uint8Array(0), options), 1);
  }

  async getCollectionStatus(name: string, options: CallOptions = {}): Promise<CollectionStatus> {
    return wire.decodeStatus(await this.#read("GetCollectionStatus", wire.encodeName(name), options));
  }

  // --- Points

  /**
   * Store points in one request, which is checked whole before anything is stored. The last one of an id
   * wins. Returns how many; they are on disk, and searches find them.
   */
  async upsert(collection: string, points: Iterable<Point>, options: CallOptions = {}): Promise<number> {
    return wire.decodeUpserted(await this.#write("Upsert", wire.encodeUpsert(collection, points), options));
  }

  /**
   * Store any number of points in requests of batchSize, at most `concurrency` of them under way. Returns
   * how many. BatchError: how many are known to be stored.
   */
  async upsertBatch(collection: string, points: Iterable<Point> | AsyncIterable<Point>,
                    options: BatchOptions = {}): Promise<number> {
    const { batchSize = 256, concurrency = 1, progress, signal } = options;
    if (!(batchSize >= 1 && concurrency >= 1)) {
      throw new RangeError("batchSize and concurrency are at least 1");
    }
    const stop = new AbortController();
    const forward = (): void => { stop.abort(); };
    signal?.addEventListener("abort", forward);
    if (signal?.aborted === true) stop.abort();
    const batches = batchesOf(points, batchSize);
    let stored = 0;
    const lane = async (): Promise<void> => {
      for (;;) {
        const next = await batches.next();
        if (next.done === true) return;
        await this.upsert(collection, next.value, { signal: stop.signal });
        stored += next.value.length;
        progress?.(stored);
      }
    };
    let failure: Error | undefined;
    const lanes = Array.from({ length: concurrency }, () => lane().catch((error: unknown) => {
      failure ??= error instanceof Error ? error : new Error(String(error));
      stop.abort();
    }));
    await Promise.all(lanes);
    signal?.removeEventListener("abort", forward);
    if (failure === undefined) return stored;
    throw failure instanceof VectronError ? new BatchError(stored, failure) : failure;
  }

  /** The point as it was stored, bit for bit. NotFoundError. */
  async get(collection: string, id: string, options: CallOptions = {}): Promise<StoredPoint> {
    return wire.decodePoint(await this.#read("Get", wire.encodeId(collection, id), options));
  }

  /** An id that is not there is no error. */
  async delete(collection: string, id: string, options: CallOptions = {}): Promise<void> {
    await this.#write("Delete", wire.encodeId(collection, id), options);
  }

  // --- Search

  /** The nearest points, nearest first. */
  async search(collection: string, vector: Vector, options: SearchOptions = {}): Promise<SearchResults> {
    return wire.decodeSearch(
      await this.#read("Search", wire.encodeSearch(collection, vector, options), options));
  }

  /** As search, for many hits: they come while the rest is on its way. */
  async *searchStream(collection: string, vector: Vector,
                      options: SearchOptions = {}): AsyncGenerator<SearchResult, void, void> {
    if (options.signal?.aborted === true) throw aborted();
    const call = this.#client.makeServerStreamRequest(
      SERVICE + "SearchStream", toBuffer, asIs, wire.encodeSearch(collection, vector, options), this.#metadata,
      { deadline: Date.now() + this.#timeoutMs });
    const cancel = (): void => { call.cancel(); };
    options.signal?.addEventListener("abort", cancel);
    try {
      for await (const data of call) {
        yield* wire.decodeSearch(data as Buffer);
      }
    } catch (error) {
      throw asVectronError(error);
    } finally {
      options.signal?.removeEventListener("abort", cancel);
      call.cancel();
    }
  }

  /** How good results were; returns the feedback's id. */
  async submitFeedback(collection: string, items: Iterable<FeedbackItem>,
                       options: FeedbackOptions = {}): Promise<string> {
    const data = await this.#write("SubmitFeedback", wire.encodeFeedback(collection, items, options), options);
    return wire.decodeTexts(data, 2)[0] ?? "";
  }

  // --- Calls

  #read(method: string, request: Uint8Array, options: CallOptions): Promise<Buffer> {
    return this.#call(method, request, true, options.signal);
  }

  #write(method: string, request: Uint8Array, options: CallOptions): Promise<Buffer> {
    return this.#call(method, request, false, options.signal);
  }

  /** With retries, all within the timeout. */
  async #call(method: string, request: Uint8Array, isRead: boolean,
              signal: AbortSignal | undefined): Promise<Buffer> {
    const deadline = Date.now() + this.#timeoutMs;
    const { retries = 3, retryPauseMs = 50, retryWrites = false } = this.#options;
    const attempts = isRead || retryWrites ? retries : 0;
    for (let attempt = 0; ; attempt++) {
      if (signal?.aborted === true) throw aborted();
      try {
        return await this.#once(method, request, isRead, deadline, signal);
      } catch (error) {
        const failure = asVectronError(error);
        const pause = Math.random() * Math.min(retryPauseMs * 2 ** attempt, RETRY_PAUSE_MAX_MS);
        if (failure.code !== UNAVAILABLE || attempt >= attempts || Date.now() + pause >= deadline) {
          throw failure;
        }
        await wait(pause, signal);
      }
    }
  }

  /** One attempt; a read that is late is sent a second time. */
  async #once(method: string, request: Uint8Array, isRead: boolean, deadline: number,
              signal: AbortSignal | undefined): Promise<Buffer> {
    const calls = [this.#start(method, request, deadline)];
    const cancel = (): void => { for (const call of calls) call.cancel(); };
    signal?.addEventListener("abort", cancel);
    let timer: NodeJS.Timeout | undefined;
    try {
      const first = calls[0] as Started;
      const hedgeAfterMs = this.#options.hedgeAfterMs;
      if (!isRead || hedgeAfterMs === undefined) return await first.answer;
      const late = new Promise<null>((resolve) => { timer = setTimeout(() => { resolve(null); }, hedgeAfterMs); });
      const answer = await Promise.race([first.answer, late]);
      if (answer !== null) return answer;
      const second = this.#start(method, request, deadline);
      calls.push(second);
      return await Promise.any([first.answer, second.answer]).catch((errors: unknown) => {
        throw (errors as AggregateError).errors[0];
      });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
      cancel();
    }
  }

  #start(method: string, request: Uint8Array, deadline: number): Started {
    let call: grpc.ClientUnaryCall | undefined;
    const answer = new Promise<Buffer>((resolve, reject) => {
      call = this.#client.makeUnaryRequest(
        SERVICE + method, toBuffer, asIs, request, this.#metadata, { deadline }, (error, data) => {
          if (error !== null) reject(error);
          else if (data === undefined) reject(errorOf(grpc.status.INTERNAL, "an answer without a message"));
          else resolve(data);
        });
    });
    // The one that nobody waits for any more may fail unheard.
    answer.catch(() => undefined);
    return { answer, cancel: () => call?.cancel() };
  }
}

function aborted(): AbortedError {
  return new AbortedError("the call was aborted", grpc.status.CANCELLED);
}

function asVectronError(error: unknown): VectronError {
  if (error instanceof VectronError) return error;
  if (error instanceof Error && "code" in error && typeof error.code === "number") {
    const details = "details" in error ? String(error.details) : error.message;
    if (error.code === CANCELLED) return aborted();
    return errorOf(error.code, details);
  }
  throw error;
}

function wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(aborted());
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

async function* batchesOf(points: Iterable<Point> | AsyncIterable<Point>,
                          size: number): AsyncGenerator<Point[], void, void> {
  let batch: Point[] = [];
  for await (const point of points) {
    batch.push(point);
    if (batch.length >= size) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}
