// The tokens of one tenant, for as long as a service runs. It is made to be copied.
import { setTimeout as sleep } from "node:timers/promises";

import type { Client } from "@connectrpc/connect";

import { TokenService, type Token } from "./gen/tokenbroker/v1/token_service_pb.js";

export type Broker = Client<typeof TokenService>;

export class Tokens {
  readonly #broker: Broker;
  readonly #request: { tenant: string; scopes: string[] };
  #token: Token | undefined;
  #end = 0; // by performance.now(), which no change of the clock moves

  /** Tokens of a tenant ("tenants/acme"), watched until signal is aborted. */
  constructor(broker: Broker, tenant: string, scopes: string[], signal: AbortSignal) {
    this.#broker = broker;
    this.#request = { tenant, scopes };
    void this.#watch(signal);
  }

  /** A token that is good now: out of memory, or else the broker's. */
  async get(): Promise<Token> {
    if (this.#token !== undefined && performance.now() < this.#end) {
      return this.#token;
    }
    const { token } = await this.#broker.getToken(this.#request, { timeoutMs: 10_000 });
    return this.#keep(token!);
  }

  /** Another token than the one that Smokeball has rejected. Ask once per rejected token. */
  async replace(rejected: Token): Promise<Token> {
    if (this.#token !== undefined && this.#token.tokenId !== rejected.tokenId) {
      return this.#token;
    }
    const { token } = await this.#broker.refreshToken(
      { ...this.#request, rejectedTokenId: rejected.tokenId },
      { timeoutMs: 10_000 },
    );
    return this.#keep(token!);
  }

  // Keeps a token until shortly before its end. What remains of its life was measured by the
  // broker, so that the clocks need not agree.
  #keep(token: Token): Token {
    const remaining = Number(token.remaining!.seconds) * 1000 + token.remaining!.nanos / 1e6;
    this.#end = performance.now() + remaining - Math.min(60_000, remaining / 10);
    this.#token = token;
    return token;
  }

  // Has the broker tell of each new token, so that nobody waits for one. Without the
  // stream a token is good until its end all the same, and get asks for the next.
  async #watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const request = { ...this.#request, heartbeatInterval: { seconds: 25n, nanos: 0 } };
        for await (const { token } of this.#broker.watchToken(request, { signal })) {
          if (token !== undefined) {
            this.#keep(token); // There is none in a heartbeat.
          }
        }
      } catch {
        // get meets the same error, and has somebody to tell.
      }
      await sleep(1000 + 4000 * Math.random(), undefined, { signal }).catch(() => {});
    }
  }
}
