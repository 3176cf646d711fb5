// A `vectron dev` for the tests of a file, from the folder VECTRON_BIN or the project's bin.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const bin = process.env.VECTRON_BIN ?? fileURLToPath(new URL("../../../bin", import.meta.url));

export class Server {
  constructor(environment = {}) {
    this.environment = environment;
  }

  async create() {
    this.folder = await mkdtemp(join(tmpdir(), "vectron-js-"));
    this.grpc = "127.0.0.1:0";
    await this.start();
    return this;
  }

  /** Again on the port of the first start. */
  async start() {
    const free = "127.0.0.1:0";
    this.process = spawn(join(bin, "vectron"), [
      "dev", "--data-dir", join(this.folder, "data"), "--http-addr", free, "--grpc-addr", this.grpc,
      "--auth-http-addr", free, "--auth-grpc-addr", free,
    ], { env: { ...process.env, RATE_LIMIT_RPS: "0", TRUSTED_PROXIES: "127.0.0.0/8", ...this.environment }, stdio: ["ignore", "pipe", "ignore"] });
    let ready = false;
    const lines = createInterface(this.process.stdout);
    for await (const line of lines) {
      for (const word of line.split(/\s+/)) {
        if (word.startsWith("VECTRON_TOKEN=")) this.token = word.slice("VECTRON_TOKEN=".length);
        if (word.startsWith("http=")) this.http = word.slice("http=".length);
        if (word.startsWith("grpc=")) {
          this.grpc = word.slice("grpc=".length);
          ready = true;
        }
      }
      if (ready && this.token !== undefined) break;
    }
    if (!ready || this.token === undefined) throw new Error("vectron dev ended before it was ready");
    this.process.stdout.resume();
  }

  async kill() {
    const ended = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await ended;
  }

  async stop() {
    const ended = once(this.process, "exit");
    this.process.kill("SIGTERM");
    const [code] = await ended;
    await rm(this.folder, { recursive: true });
    if (code !== 0) throw new Error(`vectron dev ended with ${code}`);
  }
}
