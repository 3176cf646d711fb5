// The cases of clientlibs/conformance, each by a new user; that folder's README says what a step is.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import * as vc from "vectron-client";
import { Server } from "./server.js";

const folder = new URL("../../conformance/", import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith(".json")).sort();
const MEMBERS = new Set(["call", "args", "result", "error", "holds", "role", "only", "tolerance"]);
const KINDS = {
  invalid_argument: vc.InvalidArgumentError, not_found: vc.NotFoundError, already_exists: vc.AlreadyExistsError,
  permission_denied: vc.PermissionDeniedError, resource_exhausted: vc.ResourceExhaustedError,
  unavailable: vc.UnavailableError, unauthenticated: vc.AuthenticationError,
};

let server;
before(async () => { server = await new Server().create(); });
after(async () => { await server?.stop(); });

// --- Calls

const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
const camelKeys = (object) => Object.fromEntries(Object.entries(object).map(([name, value]) => [camel(name), value]));

/** What the client's method of a step gives, named arguments put where the method has them. */
function run(client, call, args) {
  const { name, dimension, distance, collection, id, points, vector, items, ...rest } = args;
  const options = camelKeys(rest);
  switch (call) {
    case "create_collection": return client.createCollection(name, dimension, distance, options);
    case "delete_collection": return client.deleteCollection(name, options);
    case "list_collections": return client.listCollections(options);
    case "get_collection_status": return client.getCollectionStatus(name, options);
    case "upsert": return client.upsert(collection, points, options);
    case "upsert_batch": return client.upsertBatch(collection, points, options);
    case "get": return client.get(collection, id, options);
    case "delete": return client.delete(collection, id, options);
    case "search": return client.search(collection, vector, options);
    case "search_stream": return all(client.searchStream(collection, vector, options));
    case "submit_feedback": return client.submitFeedback(collection, items.map(camelKeys), options);
    default: throw new Error(`the runner does not know the call ${call}`);
  }
}

async function all(stream) {
  const found = [];
  for await (const item of stream) found.push(item);
  return found;
}

// --- Comparison

/** What is not as it should be, as sentences. */
function differences(found, wanted, tolerance, where = "result") {
  if (found instanceof Float32Array) found = [...found];
  if (Array.isArray(wanted)) {
    if (!Array.isArray(found)) return [`${where} is no list`];
    if (found.length !== wanted.length) return [`${where} has ${found.length} items, not ${wanted.length}`];
    return wanted.flatMap((item, i) => differences(found[i], item, tolerance, `${where}[${i}]`));
  }
  if (typeof wanted === "object" && wanted !== null) {
    if (typeof found !== "object" || found === null || Array.isArray(found)) return [`${where} is no object`];
    return Object.entries(wanted).flatMap(([name, value]) => (name in found
      ? differences(found[name], value, tolerance, `${where}.${name}`) : [`${where} has no ${name}`]));
  }
  if (typeof wanted === "number" && typeof found === "number") {
    const isNear = Math.abs(found - wanted) <= tolerance * Math.max(1e-30, Math.abs(wanted)) ||
      (wanted === 0 && Math.abs(found) <= tolerance);
    return isNear ? [] : [`${where} is ${found}, not ${wanted}`];
  }
  return found === wanted ? [] : [`${where} is ${String(found)}, not ${String(wanted)}`];
}

test("the comparison sees differences", () => {
  const wanted = { id: "a", score: 0.5, list: [1, true], no: null };
  assert.deepEqual(differences({ ...wanted, more: 1 }, wanted, 1e-6), []);
  for (const change of [{ id: "b" }, { score: 0.50001 }, { list: [1] }, { list: [1, 1] }, { no: 0 }, { score: "0.5" }]) {
    assert.notDeepEqual(differences({ ...wanted, ...change }, wanted, 1e-6), [], JSON.stringify(change));
  }
});

// --- Cases

let people = 0;

/** A new user's token by role. */
async function newUser() {
  const ask = async (path, body, token) => {
    const answer = await fetch(`http://${server.http}${path}`, {
      method: "POST",
      body: JSON.stringify(body),
      // Accounts are limited by address.
      headers: {
        "content-type": "application/json", "x-forwarded-for": `10.7.0.${people}`,
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
    });
    const json = await answer.json();
    assert.equal(answer.status, 200, JSON.stringify(json));
    return json;
  };
  const account = { email: `js${++people}-${process.pid}@example.com`, password: "Correct-horse-7" };
  await ask("/v1/users/register", account);
  const login = (await ask("/v1/users/login", account)).jwtToken;
  return async (role) => ({ nobody: "nonsense", login })[role] ??
    (await ask("/v1/keys", { name: role, role }, login)).sdkJwt;
}

async function runCase(steps, tokenOf, clients) {
  for (const [index, step] of steps.entries()) {
    assert.ok(Object.keys(step).every((name) => MEMBERS.has(name)), JSON.stringify(step));
    if ((step.only ?? "grpc") !== "grpc") continue;
    const role = step.role ?? "owner";
    if (!clients.has(role)) clients.set(role, new vc.VectronClient(server.grpc, await tokenOf(role)));
    const what = `step ${index + 1}, ${step.call}`;
    if (step.error !== undefined) {
      assert.ok(step.error in KINDS, `${what}: the runner does not know the error ${step.error}`);
      await assert.rejects(run(clients.get(role), step.call, step.args), (error) => {
        const cause = error instanceof vc.BatchError ? error.cause : error;
        assert.ok(cause instanceof KINDS[step.error], `${what} failed with ${String(error)}, not ${step.error}`);
        assert.ok(error.message.includes(step.holds ?? ""), `${what}: "${error.message}" lacks "${step.holds}"`);
        return true;
      }, what);
      continue;
    }
    const found = await run(clients.get(role), step.call, step.args);
    if ("result" in step) {
      assert.deepEqual(differences(found ?? null, step.result, step.tolerance ?? 1e-6), [], what);
    }
  }
}

test("the cases are there", () => { assert.ok(files.length >= 6); });

for (const file of files) {
  test(file.replace(".json", ""), async () => {
    const clients = new Map();
    try {
      await runCase(JSON.parse(readFileSync(new URL(file, folder), "utf8")), await newUser(), clients);
    } finally {
      for (const client of clients.values()) client.close();
    }
  });
}
