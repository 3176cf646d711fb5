// Messages to and from bytes (api/vectron.proto). Vectors go in and out as one block of memory.
import { endianness } from "node:os";
import protobuf from "protobufjs/minimal.js";
import type {
  CollectionStatus, FeedbackItem, FeedbackOptions, Json, Payload, Point, SearchOptions, SearchResult, SearchResults,
  ShardStatus, StoredPoint, Vector,
} from "./types.js";

type Reader = protobuf.Reader;
type Writer = protobuf.Writer;
const { Reader, Writer } = protobuf;

if (endianness() !== "LE") {
  throw new Error("vectron-client needs a little-endian machine");
}

const VARINT = 0, FIXED64 = 1, BYTES = 2;
const key = (number: number, kind: number): number => (number << 3) | kind;

// --- Writing

function text(out: Writer, number: number, value: string | undefined): void {
  if (value) out.uint32(key(number, BYTES)).string(value);
}
function whole(out: Writer, number: number, value: number | undefined, name: string): void {
  if (value === undefined || value === 0) return;
  if (!Number.isInteger(value) || value < 0 || value > 0x7fffffff) {
    throw new RangeError(`${name} is a whole number of at least 0, not ${String(value)}`);
  }
  out.uint32(key(number, VARINT)).uint32(value);
}
function flag(out: Writer, number: number, value: boolean | undefined): void {
  if (value === true) out.uint32(key(number, VARINT)).bool(true);
}
function vectorField(out: Writer, number: number, vector: Vector): void {
  const floats = vector instanceof Float32Array ? vector : Float32Array.from(vector);
  out.uint32(key(number, BYTES)).bytes(new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength));
}
function mapField(out: Writer, number: number, map: Readonly<Record<string, string>> | undefined): void {
  for (const [name, value] of Object.entries(map ?? {})) {
    out.uint32(key(number, BYTES)).fork();
    text(out, 1, name);
    text(out, 2, value);
    out.ldelim();
  }
}

/** google.protobuf.Value, written even when it is empty. */
function writeValue(out: Writer, value: Json): void {
  if (value === null) {
    out.uint32(key(1, VARINT)).int32(0);
  } else if (typeof value === "number") {
    out.uint32(key(2, FIXED64)).double(value);
  } else if (typeof value === "string") {
    out.uint32(key(3, BYTES)).string(value);
  } else if (typeof value === "boolean") {
    out.uint32(key(4, VARINT)).bool(value);
  } else if (Array.isArray(value)) {
    out.uint32(key(6, BYTES)).fork();
    for (const item of value) {
      out.uint32(key(1, BYTES)).fork();
      writeValue(out, item);
      out.ldelim();
    }
    out.ldelim();
  } else if (typeof value === "object") {
    out.uint32(key(5, BYTES)).fork();
    writeStruct(out, value);
    out.ldelim();
  } else {
    throw new TypeError(`a payload holds JSON values, not ${typeof value}`);
  }
}
function writeStruct(out: Writer, payload: Payload): void {
  for (const [name, value] of Object.entries(payload)) {
    out.uint32(key(1, BYTES)).fork();
    text(out, 1, name);
    out.uint32(key(2, BYTES)).fork();
    writeValue(out, value);
    out.ldelim().ldelim();
  }
}

export function encodeName(name: string): Uint8Array {
  const out = Writer.create();
  text(out, 1, name);
  return out.finish();
}

export function encodeCreate(name: string, dimension: number, distance: string): Uint8Array {
  const out = Writer.create();
  text(out, 1, name);
  whole(out, 2, dimension, "dimension");
  text(out, 3, distance);
  return out.finish();
}

/** GetRequest and DeleteRequest. */
export function encodeId(collection: string, id: string): Uint8Array {
  const out = Writer.create();
  text(out, 1, collection);
  text(out, 2, id);
  return out.finish();
}

export function encodeUpsert(collection: string, points: Iterable<Point>): Uint8Array {
  const out = Writer.create();
  text(out, 1, collection);
  for (const point of points) {
    out.uint32(key(2, BYTES)).fork();
    text(out, 1, point.id);
    vectorField(out, 2, point.vector);
    if (point.payload !== undefined && Object.keys(point.payload).length > 0) {
      out.uint32(key(4, BYTES)).fork();
      writeStruct(out, point.payload);
      out.ldelim();
    }
    out.ldelim();
  }
  return out.finish();
}

export function encodeSearch(collection: string, vector: Vector, options: SearchOptions): Uint8Array {
  const out = Writer.create();
  text(out, 1, collection);
  vectorField(out, 2, vector);
  whole(out, 3, options.topK ?? 10, "topK");
  text(out, 4, options.query);
  whole(out, 5, options.timeoutMs, "timeoutMs");
  flag(out, 6, options.includeVectors);
  flag(out, 7, options.includePayload ?? true);
  flag(out, 8, options.exact);
  whole(out, 9, options.ef, "ef");
  whole(out, 10, options.maxStalenessMs, "maxStalenessMs");
  return out.finish();
}

export function encodeFeedback(collection: string, items: Iterable<FeedbackItem>,
                               options: FeedbackOptions): Uint8Array {
  const out = Writer.create();
  text(out, 1, collection);
  text(out, 2, options.query);
  for (const id of options.resultIds ?? []) out.uint32(key(3, BYTES)).string(id);
  for (const item of items) {
    out.uint32(key(4, BYTES)).fork();
    text(out, 1, item.resultId);
    whole(out, 2, item.relevanceScore, "relevanceScore");
    flag(out, 3, item.clicked);
    whole(out, 4, item.position, "position");
    text(out, 5, item.comment);
    out.ldelim();
  }
  mapField(out, 5, options.context);
  return out.finish();
}

// --- Reading

/** Calls read for each field; read answers false for a field that it does not know, which is skipped. */
function fields(reader: Reader, end: number, read: (number: number) => boolean): void {
  while (reader.pos < end) {
    const tag = reader.uint32();
    if (!read(tag >>> 3)) reader.skipType(tag & 7);
  }
}
function within<T>(reader: Reader, read: (end: number) => T): T {
  const size = reader.uint32();
  return read(reader.pos + size);
}

function readVector(reader: Reader): Float32Array {
  const bytes = reader.bytes();
  const floats = new Float32Array(bytes.length / 4);
  new Uint8Array(floats.buffer).set(bytes);
  return floats;
}

function readValue(reader: Reader, end: number): Json {
  let value: Json = null;
  fields(reader, end, (number) => {
    switch (number) {
      case 1: reader.int32(); value = null; return true;
      case 2: value = reader.double(); return true;
      case 3: value = reader.string(); return true;
      case 4: value = reader.bool(); return true;
      case 5: value = within(reader, (inner) => readStruct(reader, inner)); return true;
      case 6: {
        const list: Json[] = [];
        within(reader, (inner) => {
          fields(reader, inner, (item) => {
            if (item !== 1) return false;
            list.push(within(reader, (last) => readValue(reader, last)));
            return true;
          });
        });
        value = list;
        return true;
      }
      default: return false;
    }
  });
  return value;
}

/** An entry of a map whose values `read` takes. */
function readEntry<T>(reader: Reader, into: Record<string, T>, absent: T, read: () => T): void {
  within(reader, (end) => {
    let name = "";
    let value = absent;
    fields(reader, end, (number) => {
      if (number === 1) name = reader.string();
      else if (number === 2) value = read();
      else return false;
      return true;
    });
    // Assignment to "__proto__" would not make a property.
    Object.defineProperty(into, name, { value, enumerable: true, writable: true, configurable: true });
  });
}
function readStruct(reader: Reader, end: number): Payload {
  const payload: Payload = {};
  fields(reader, end, (number) => {
    if (number !== 1) return false;
    readEntry<Json>(reader, payload, null, () => within(reader, (inner) => readValue(reader, inner)));
    return true;
  });
  return payload;
}

function readPoint(reader: Reader, end: number): StoredPoint {
  const point: StoredPoint = { id: "", vector: new Float32Array(0), payload: {} };
  fields(reader, end, (number) => {
    switch (number) {
      case 1: point.id = reader.string(); return true;
      case 2: point.vector = readVector(reader); return true;
      case 4: point.payload = within(reader, (inner) => readStruct(reader, inner)); return true;
      default: return false;
    }
  });
  return point;
}

function readResult(reader: Reader, end: number): SearchResult {
  const result: SearchResult = { id: "", score: 0, payload: {}, rerankScore: 0 };
  fields(reader, end, (number) => {
    switch (number) {
      case 1: result.id = reader.string(); return true;
      case 2: result.score = reader.float(); return true;
      case 4: result.vector = readVector(reader); return true;
      case 5: result.payload = within(reader, (inner) => readStruct(reader, inner)); return true;
      case 6: result.rerankScore = reader.float(); return true;
      default: return false;
    }
  });
  return result;
}

function readShard(reader: Reader, end: number): ShardStatus {
  const shard: ShardStatus = { shardId: 0, replicas: [], leaderId: "0", ready: false };
  fields(reader, end, (number) => {
    switch (number) {
      case 1: shard.shardId = reader.uint32(); return true;
      case 2:
        within(reader, (inner) => {
          while (reader.pos < inner) shard.replicas.push(reader.uint64().toString());
        });
        return true;
      case 3: shard.leaderId = reader.uint64().toString(); return true;
      case 4: shard.ready = reader.bool(); return true;
      default: return false;
    }
  });
  return shard;
}

export function decodeSearch(data: Uint8Array): SearchResults {
  const reader = Reader.create(data);
  const results: SearchResult[] = [];
  const counts = [0, 0, 0];
  fields(reader, reader.len, (number) => {
    if (number === 1) results.push(within(reader, (end) => readResult(reader, end)));
    else if (number >= 2 && number <= 4) counts[number - 2] = reader.uint32();
    else return false;
    return true;
  });
  return Object.defineProperties(results, {
    shardsTotal: { value: counts[0] },
    shardsAnswered: { value: counts[1] },
    stalenessMs: { value: counts[2] },
  }) as SearchResults;
}

export function decodePoint(data: Uint8Array): StoredPoint {
  const reader = Reader.create(data);
  let point: StoredPoint = { id: "", vector: new Float32Array(0), payload: {} };
  fields(reader, reader.len, (number) => {
    if (number !== 1) return false;
    point = within(reader, (end) => readPoint(reader, end));
    return true;
  });
  return point;
}

export function decodeStatus(data: Uint8Array): CollectionStatus {
  const reader = Reader.create(data);
  const status: CollectionStatus = { name: "", dimension: 0, distance: "", shards: [] };
  fields(reader, reader.len, (number) => {
    switch (number) {
      case 1: status.name = reader.string(); return true;
      case 2: status.dimension = reader.int32(); return true;
      case 3: status.distance = reader.string(); return true;
      case 4: status.shards.push(within(reader, (end) => readShard(reader, end))); return true;
      default: return false;
    }
  });
  return status;
}

/** The strings of one field. */
export function decodeTexts(data: Uint8Array, wanted: number): string[] {
  const reader = Reader.create(data);
  const texts: string[] = [];
  fields(reader, reader.len, (number) => {
    if (number !== wanted) return false;
    texts.push(reader.string());
    return true;
  });
  return texts;
}

export function decodeUpserted(data: Uint8Array): number {
  const reader = Reader.create(data);
  let upserted = 0;
  fields(reader, reader.len, (number) => {
    if (number !== 1) return false;
    upserted = reader.int32();
    return true;
  });
  return upserted;
}
