// Lists the matters of some law firms, as a service does that calls Smokeball with
// tokens of the broker.
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { TokenService, type Token } from "./gen/tokenbroker/v1/token_service_pb.js";
import { Tokens } from "./tokens.ts";

type Matters = {
  value: { number: string; status: string; description: string }[];
  next?: { href: string };
};

// GETs a URL of the tenant's API. A token that Smokeball rejects is replaced once.
async function getJSON(tokens: Tokens, url: (base: string) => string): Promise<unknown> {
  let token = await tokens.get();
  let response = await send(token, url(token.apiBaseUrl));
  if (response.status === 401) {
    await response.body?.cancel();
    token = await tokens.replace(token);
    response = await send(token, url(token.apiBaseUrl));
  }
  if (!response.ok) {
    throw new Error(`Smokeball answers ${response.status} ${response.statusText}`);
  }
  return response.json();
}

// The token and the API key go to the tenant's API and nowhere else: not where an answer
// leads, nor where a redirect does.
function send(token: Token, url: string): Promise<Response> {
  if (!url.startsWith(token.apiBaseUrl + "/")) {
    throw new Error("not a URL of the tenant's API");
  }
  const headers = { authorization: `Bearer ${token.accessToken}`, "x-api-key": token.apiKey };
  return fetch(url, { headers, redirect: "manual", signal: AbortSignal.timeout(30_000) });
}

async function listMatters(tenant: string, tokens: Tokens): Promise<void> {
  let url: ((base: string) => string) | undefined = (base) => base + "/matters?limit=2";
  while (url !== undefined) {
    const page = (await getJSON(tokens, url)) as Matters;
    for (const m of page.value) {
      console.log(`${tenant} ${m.number} ${m.status.padEnd(7)} ${m.description}`);
    }
    const next = page.next?.href; // with host and account
    url = next === undefined ? undefined : () => next;
  }
}

// One connection for the whole service. http:// is for a broker on this machine: in
// production it is https://, with nodeOptions: { ca, cert, key }.
const transport = createGrpcTransport({
  baseUrl: process.env.BROKER ?? "http://127.0.0.1:9090",
  pingIntervalMs: 30_000, // A broker that has gone is noticed, although the streams are silent.
});
const broker = createClient(TokenService, transport);
const ending = new AbortController();
for (const tenant of ["tenants/acme", "tenants/globex"]) {
  try {
    await listMatters(tenant, new Tokens(broker, tenant, ["matters/read"], ending.signal));
  } catch (error) {
    console.error(`Error: list the matters of ${tenant}: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
ending.abort();
