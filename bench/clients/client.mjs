// One phase by the JavaScript client; see bench/clients.py. Prints {"seconds", "cpu"}.
import { readFile } from "node:fs/promises";
import { VectronClient } from "../../clientlibs/js/dist/esm/index.js";

const [host, token, phase, collection, file, dimensionText, countText, concurrencyText] = process.argv.slice(2);
const dimension = Number(dimensionText);
const bytes = await readFile(file);
const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const rowCount = values.length / dimension;
const row = (i) => values.subarray(i * dimension, (i + 1) * dimension);

function* points() {
  for (let i = 0; i < rowCount; i++) yield { id: `p${i}`, vector: row(i) };
}

const client = new VectronClient(host, token, { timeoutMs: 120_000 });
await client.listCollections();
const cpu = process.cpuUsage();
const started = process.hrtime.bigint();
if (phase === "ingest") {
  await client.upsertBatch(collection, points(), { concurrency: Number(concurrencyText) });
} else {
  for (let i = 0; i < Number(countText); i++) {
    const hits = await client.search(collection, row(i % rowCount), { topK: 10 });
    if (hits.length !== 10) throw new Error(`${hits.length} hits`);
  }
}
const used = process.cpuUsage(cpu);
console.log(JSON.stringify({
  seconds: Number(process.hrtime.bigint() - started) / 1e9, cpu: (used.user + used.system) / 1e6,
}));
client.close();
