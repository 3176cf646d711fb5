"""What can go wrong. Every error of a call is a VectronError with the server's code and sentence."""
from __future__ import annotations

import grpc


class VectronError(Exception):
    """code: the gRPC status; message: what the server says, which names field, value and limit."""

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class InvalidArgumentError(VectronError):
    """A field is not as it must be; nothing was stored."""


class NotFoundError(VectronError):
    """No such collection or point, or it is not yours."""


class AlreadyExistsError(VectronError):
    """The name is taken."""


class AuthenticationError(VectronError):
    """The token is missing, expired, revoked, or no SDK token."""


class PermissionDeniedError(VectronError):
    """The token's role or collections do not allow it."""


class UnavailableError(VectronError):
    """The server or a shard cannot be reached now."""


class ResourceExhaustedError(VectronError):
    """Over a limit, a quota or a budget."""


class DeadlineExceededError(VectronError):
    """No answer in time. A write may have been done."""


class InternalServerError(VectronError):
    """A fault of the server."""


class BatchError(VectronError):
    """upsert_batch ended early. stored: points that were acknowledged; those of requests that were under
    way may be stored too. The cause is __cause__. Sending everything again is safe."""

    def __init__(self, stored: int, cause: VectronError) -> None:
        super().__init__(f"after {stored} stored points: {cause.message}", cause.code)
        self.stored = stored


_TYPES: dict[grpc.StatusCode, type[VectronError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.INTERNAL: InternalServerError,
}


def from_status(code: grpc.StatusCode, message: str) -> VectronError:
    return _TYPES.get(code, VectronError)(message, code)
