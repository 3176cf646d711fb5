// The client against the real server, with the package as its users import it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import * as vc from "vectron-client";
import { Server } from "./server.js";

const require = createRequire(import.meta.url);
let server;
let client;

before(async () => {
  server = await new Server().create();
  client = new vc.VectronClient(server.grpc, server.token);
});
after(async () => {
  client?.close();
  await server?.stop();
});

test("a program from beginning to end", async () => {
  await client.createCollection("words", 4);
  await client.createCollection("apples", 4, "dot");
  const names = await client.listCollections();
  assert.deepEqual(names.filter((name) => ["words", "apples"].includes(name)), ["apples", "words"]);
  await assert.rejects(client.createCollection("words", 4), vc.AlreadyExistsError);
  let status = await client.getCollectionStatus("words");
  for (let i = 0; i < 100 && !status.shards.every((shard) => shard.ready); i++) {
    await sleep(100);
    status = await client.getCollectionStatus("words");
  }
  assert.deepEqual([status.name, status.dimension, status.distance], ["words", 4, "cosine"]);
  assert.equal(status.shards.length, 1);
  assert.match(status.shards[0].leaderId, /^[1-9][0-9]*$/);
  assert.deepEqual(status.shards[0].replicas, [status.shards[0].leaderId]);
  assert.equal(status.shards[0].ready, true);

  const payload = {
    text: "ä", n: 3, x: 0.5, yes: true, no: null, list: [1, { a: "b" }, []], empty: {}, ["__proto__"]: "kept",
  };
  const vector = Float32Array.of(0.1, -2, 3e-20, 7);
  assert.equal(await client.upsert("words", [
    { id: "a", vector, payload }, { id: "b", vector: [1, 2, 3, 4] }, { id: "c", vector: [4, 3, 2, 1] },
  ]), 3);
  assert.equal(await client.upsert("words", []), 0);
  const point = await client.get("words", "a");
  assert.deepEqual(point, { id: "a", vector, payload });
  // A part of a larger array goes out as that part.
  const block = Float32Array.of(9, 9, 9, 9, 1, 2, 3, 4);
  const hits = await client.search("words", block.subarray(4), { topK: 2, includeVectors: true });
  assert.deepEqual(hits.map((hit) => hit.id), ["b", "c"]);
  assert.equal(hits[0].score, 0);
  assert.deepEqual([hits.shardsTotal, hits.shardsAnswered, hits.stalenessMs], [1, 1, 0]);
  assert.deepEqual(Object.keys(hits), ["0", "1"]);
  assert.deepEqual(hits[1].vector, Float32Array.of(4, 3, 2, 1));
  const [nearest] = await client.search("words", vector, { topK: 1 });
  assert.deepEqual(nearest.payload, payload);
  assert.equal(nearest.vector, undefined);
  assert.deepEqual((await client.search("words", vector, { topK: 1, includePayload: false }))[0].payload, {});
  assert.equal((await client.search("words", vector, { exact: true, ef: 9 })).length, 3);

  await client.delete("words", "b");
  await client.delete("words", "b");
  await assert.rejects(client.get("words", "b"), (error) => {
    assert.ok(error instanceof vc.NotFoundError && error instanceof vc.VectronError);
    assert.equal(error.code, 5);
    assert.match(error.message, /not found/);
    return true;
  });
  assert.notEqual(await client.submitFeedback("words", [{ resultId: "a", relevanceScore: 5, clicked: true }],
    { query: "x", resultIds: ["a"], context: { page: "1" } }), "");
  await client.deleteCollection("words");
  await assert.rejects(client.search("words", vector), vc.NotFoundError);
});

function* many(count, dimension, prefix = "p") {
  for (let i = 0; i < count; i++) {
    yield { id: `${prefix}${i}`, vector: Float32Array.from({ length: dimension }, (_, j) => Math.sin(i * 7 + j)) };
  }
}

test("many points and hits", async () => {
  await client.createCollection("many", 8, "euclidean");
  const heard = [];
  assert.equal(await client.upsertBatch("many", many(3000, 8),
    { concurrency: 4, progress: (stored) => heard.push(stored) }), 3000);
  assert.equal(heard.length, 12);
  assert.deepEqual(heard, [...heard].sort((a, b) => a - b));
  assert.equal(heard.at(-1), 3000);
  const found = [];
  for await (const hit of client.searchStream("many", [...many(6, 8)][5].vector, { topK: 2500 })) found.push(hit);
  assert.equal(new Set(found.map((hit) => hit.id)).size, 2500);
  assert.equal(found[0].id, "p5");
  // Leaving early ends the call.
  for await (const hit of client.searchStream("many", new Float32Array(8), { topK: 2500 })) {
    assert.notEqual(hit.id, "");
    break;
  }
});

test("a batch that fails says what is stored", async () => {
  await client.createCollection("part", 2);
  const points = Array.from({ length: 1000 }, (_, i) => ({ id: `p${i}`, vector: [1, i] }));
  points[700] = { id: "bad", vector: [1, 2, 3] };
  await assert.rejects(client.upsertBatch("part", points, { batchSize: 100 }), (error) => {
    assert.ok(error instanceof vc.BatchError);
    assert.equal(error.stored, 700);
    assert.ok(error.cause instanceof vc.InvalidArgumentError);
    assert.match(error.message, /dimension/);
    return true;
  });
  assert.equal((await client.get("part", "p699")).id, "p699");
  await assert.rejects(client.get("part", "p701"), vc.NotFoundError);
});

test("errors have their types", async () => {
  await assert.rejects(client.createCollection("bad", 0), vc.InvalidArgumentError);
  await assert.rejects(client.createCollection("bad", 3, "manhattan"), vc.InvalidArgumentError);
  await assert.rejects(client.search("many", [NaN, 0, 0, 0, 0, 0, 0, 0]), vc.InvalidArgumentError);
  await assert.rejects(client.search("many", new Float32Array(8), { topK: 1.5 }), RangeError);
  await assert.rejects(client.upsert("many", [{ id: "f", vector: new Float32Array(8), payload: { f: () => 1 } }]),
    TypeError);
  const stranger = new vc.VectronClient(server.grpc, "nonsense");
  await assert.rejects(stranger.listCollections(), vc.AuthenticationError);
  stranger.close();
});

test("the token comes from the environment unless told", async () => {
  const before = process.env.VECTRON_TOKEN;
  try {
    delete process.env.VECTRON_TOKEN;
    assert.throws(() => new vc.VectronClient(server.grpc), /SDK token/);
    process.env.VECTRON_TOKEN = server.token;
    const other = new vc.VectronClient(server.grpc, undefined, { gzip: true });
    assert.equal(await other.upsert("many", many(300, 8)), 300);
    other.close();
  } finally {
    if (before === undefined) delete process.env.VECTRON_TOKEN;
    else process.env.VECTRON_TOKEN = before;
  }
});

test("time, aborts and hedged reads", async () => {
  // Takes connections and never answers.
  const sockets = new Set();
  const silent = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  await new Promise((resolve) => { silent.listen(0, "127.0.0.1", resolve); });
  const address = `127.0.0.1:${silent.address().port}`;
  const late = new vc.VectronClient(address, server.token, { timeoutMs: 300 });
  const start = Date.now();
  await assert.rejects(late.listCollections(),
    (error) => error instanceof vc.DeadlineExceededError || error instanceof vc.UnavailableError);
  assert.ok(Date.now() - start < 2000);
  late.close();

  const patient = new vc.VectronClient(address, server.token);
  const controller = new AbortController();
  const call = patient.listCollections({ signal: controller.signal });
  setTimeout(() => { controller.abort(); }, 50);
  await assert.rejects(call, vc.AbortedError);
  await assert.rejects(patient.get("x", "y", { signal: controller.signal }), vc.AbortedError);
  patient.close();
  for (const socket of sockets) socket.destroy();
  silent.close();

  const hedged = new vc.VectronClient(server.grpc, server.token, { hedgeAfterMs: 0 });
  for (let i = 0; i < 20; i++) assert.ok((await hedged.listCollections()).includes("many"));
  hedged.close();
});

test("an upload outlives a server that is killed", async () => {
  await client.createCollection("killed", 8, "euclidean");
  const steady = new vc.VectronClient(server.grpc, server.token,
    { retryWrites: true, retries: 12, retryPauseMs: 100 });
  let restarted;
  const stored = await steady.upsertBatch("killed", many(20_000, 8), {
    concurrency: 4,
    progress: (count) => {
      if (count > 8000) restarted ??= server.kill().then(() => server.start());
    },
  });
  await restarted;
  assert.notEqual(restarted, undefined);
  assert.equal(stored, 20_000);
  const seen = new Set();
  let hits = 0;
  for await (const hit of steady.searchStream("killed", new Float32Array(8), { topK: 10_000 })) {
    seen.add(hit.id);
    hits++;
  }
  assert.equal(seen.size, hits);
  assert.equal(hits, 10_000);
  for (let i = 0; i < 20_000; i += 97) assert.equal((await steady.get("killed", `p${i}`)).id, `p${i}`);
  steady.close();
});

test("an upload with a deadline says what is stored", async () => {
  const own = await new Server().create();
  const steady = new vc.VectronClient(own.grpc, own.token, { retryWrites: true, retries: 100 });
  await steady.createCollection("late", 8, "euclidean");
  let killed;
  const failure = await steady.upsertBatch("late", many(20_000, 8), {
    signal: AbortSignal.timeout(4000),
    progress: (count) => { if (count > 5000) killed ??= own.kill(); },
  }).then(() => undefined, (error) => error);
  assert.ok(failure instanceof vc.BatchError, String(failure));
  assert.ok(failure.stored > 5000 && failure.stored < 20_000, String(failure.stored));
  await own.start();
  for (let i = 0; i < failure.stored; i += 97) assert.equal((await steady.get("late", `p${i}`)).id, `p${i}`);
  assert.equal((await steady.get("late", `p${failure.stored - 1}`)).id, `p${failure.stored - 1}`);
  // The request under way may have been stored, no other.
  await assert.rejects(steady.get("late", `p${failure.stored + 256}`), vc.NotFoundError);
  steady.close();
  await own.stop();
});

test("no proxy gets the token", async () => {
  const heard = [];
  const proxy = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (data) => { heard.push(data.toString()); socket.destroy(); });
  });
  await new Promise((resolve) => { proxy.listen(0, "127.0.0.1", resolve); });
  process.env.grpc_proxy = `http://127.0.0.1:${proxy.address().port}`;
  try {
    const direct = new vc.VectronClient(server.grpc, server.token);
    assert.ok((await direct.listCollections()).includes("many"));
    direct.close();
    assert.deepEqual(heard, []);
    const asked = new vc.VectronClient(server.grpc, server.token, { useProxy: true, retries: 0, timeoutMs: 1000 });
    await assert.rejects(asked.listCollections());
    asked.close();
    assert.match(heard[0], /^CONNECT/);
  } finally {
    delete process.env.grpc_proxy;
    proxy.close();
  }
});

test("TLS, with a certificate that is checked", async () => {
  const folder = await mkdtemp(join(tmpdir(), "vectron-js-tls-"));
  const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
  { stdio: "ignore" });
  const own = await new Server({ GRPC_TLS_CERT_FILE: certificate, GRPC_TLS_KEY_FILE: key }).create();
  const rootCertificates = await readFile(certificate);
  const encrypted = new vc.VectronClient(own.grpc, own.token, { rootCertificates });
  await encrypted.createCollection("secret", 1, "euclidean");
  assert.equal(await encrypted.upsert("secret", [{ id: "a", vector: [1] }]), 1);
  assert.equal((await encrypted.search("secret", [1]))[0].id, "a");
  encrypted.close();
  const hurry = { retries: 0, timeoutMs: 2000 };
  for (const options of [{ ...hurry, tls: true }, hurry]) { // a stranger's certificate; plain text
    const refused = new vc.VectronClient(own.grpc, own.token, options);
    await assert.rejects(refused.listCollections(), vc.VectronError);
    refused.close();
  }
  await own.stop();
  await rm(folder, { recursive: true });
});

test("CommonJS has the same names", () => {
  assert.deepEqual(Object.keys(require("vectron-client")).sort(), Object.keys(vc).sort());
});

test("the examples of the document run", async () => {
  const text = await readFile(new URL("../../../docs/clients/js.md", import.meta.url), "utf8");
  const examples = [...text.matchAll(/```js\n([\s\S]*?)```/g)].map((match) => match[1]);
  assert.ok(examples.length >= 3);
  const code = examples.join("\n").replace(/^import \{(.*)\} from "vectron-client";$/gm, "const {$1} = vc;");
  const AsyncFunction = (async () => undefined).constructor;
  await new AsyncFunction("vc", "assert", "host", "token", code)(vc, assert, server.grpc, server.token);
});
