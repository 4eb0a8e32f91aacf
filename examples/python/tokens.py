"""The tokens of one tenant, for as long as a service runs. It is made to be copied."""

import random
import threading
import time

import grpc
from google.protobuf.duration_pb2 import Duration

from tokenbroker.v1 import token_service_pb2 as pb
from tokenbroker.v1 import token_service_pb2_grpc


class Tokens:
    """Tokens of a tenant ("tenants/acme") with these scopes. Safe for threads."""

    def __init__(self, channel: grpc.Channel, tenant: str, scopes: list[str]):
        self._broker = token_service_pb2_grpc.TokenServiceStub(channel)
        self._want = {"tenant": tenant, "scopes": scopes}
        self._lock = threading.Lock()
        self._token: pb.Token | None = None
        self._end = 0.0  # by time.monotonic(), which no change of the clock moves
        threading.Thread(target=self._watch, daemon=True).start()

    def get(self) -> pb.Token:
        """A token that is good now: out of memory, or else the broker's."""
        with self._lock:
            if self._token is not None and time.monotonic() < self._end:
                return self._token
        return self._keep(self._broker.GetToken(pb.GetTokenRequest(**self._want), timeout=10).token)

    def replace(self, rejected: pb.Token) -> pb.Token:
        """Another token than the one that Smokeball has rejected. Ask once per rejected token."""
        with self._lock:
            if self._token is not None and self._token.token_id != rejected.token_id:
                return self._token
        request = pb.RefreshTokenRequest(**self._want, rejected_token_id=rejected.token_id)
        return self._keep(self._broker.RefreshToken(request, timeout=10).token)

    def _keep(self, token: pb.Token) -> pb.Token:
        # Until shortly before its end. What remains of its life was measured by the broker,
        # so that the clocks need not agree.
        remaining = token.remaining.ToNanoseconds() / 1e9
        with self._lock:
            self._token = token
            self._end = time.monotonic() + remaining - min(60, remaining / 10)
        return token

    def _watch(self) -> None:
        # Has the broker tell of each new token, so that nobody waits for one. Without the
        # stream a token is good until its end all the same, and get asks for the next.
        request = pb.WatchTokenRequest(**self._want, heartbeat_interval=Duration(seconds=25))
        while True:
            try:
                for response in self._broker.WatchToken(request):
                    if response.HasField("token"):  # There is none in a heartbeat.
                        self._keep(response.token)
            except grpc.RpcError:
                pass  # get meets the same error, and has somebody to tell.
            except ValueError:
                return  # The channel is closed.
            time.sleep(random.uniform(1, 5))
