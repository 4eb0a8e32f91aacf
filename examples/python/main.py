"""Lists the matters of some law firms, as a service does that calls Smokeball with
tokens of the broker."""

import json
import os
import sys
import urllib.error
import urllib.request

import grpc

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "gen"))
from tokens import Tokens  # noqa: E402 (it imports from gen)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the token would be sent along, to whatever host."""

    def redirect_request(self, *_):
        return None


http = urllib.request.build_opener(NoRedirect)


def send(token, url: str):
    # The token and the API key go to the tenant's API and nowhere else, wherever an answer
    # leads.
    if not url.startswith(token.api_base_url + "/"):
        raise ValueError("not a URL of the tenant's API")
    headers = {"Authorization": "Bearer " + token.access_token, "x-api-key": token.api_key}
    with http.open(urllib.request.Request(url, headers=headers), timeout=30) as response:
        return json.load(response)


def get_json(tokens: Tokens, url: str):
    """GETs a URL, or a path of the tenant's API. A token that Smokeball rejects is replaced once."""
    token = tokens.get()
    where = token.api_base_url + url if url.startswith("/") else url
    try:
        return send(token, where)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 401:
            raise
    return send(tokens.replace(token), where)


def list_matters(tenant: str, tokens: Tokens) -> None:
    url = "/matters?limit=2"
    while url:
        page = get_json(tokens, url)
        for m in page["value"]:
            print(tenant, m["number"], m["status"].ljust(7), m["description"])
        url = page.get("next", {}).get("href")  # with host and account


def main() -> int:
    # One channel for the whole service. It is insecure for a broker on this machine: in
    # production it is grpc.secure_channel with grpc.ssl_channel_credentials(ca, key, cert).
    # Pings notice a broker that has gone although the streams are silent.
    options = [("grpc.keepalive_time_ms", 30_000), ("grpc.http2.max_pings_without_data", 0)]
    with grpc.insecure_channel(os.environ.get("BROKER", "127.0.0.1:9090"), options) as channel:
        status = 0
        for tenant in ("tenants/acme", "tenants/globex"):
            try:
                list_matters(tenant, Tokens(channel, tenant, ["matters/read"]))
            except grpc.RpcError as error:
                print(f"Error: {tenant}: {error.code().name}: {error.details()}", file=sys.stderr)
                status = 1
            except (urllib.error.URLError, ValueError) as error:
                print(f"Error: list the matters of {tenant}: {error}", file=sys.stderr)
                status = 1
        return status


if __name__ == "__main__":
    sys.exit(main())
