// What can go wrong. Every error of a call is a VectronError with the server's code and sentence.
import { status } from "@grpc/grpc-js";

/** code: the gRPC status; message: what the server says, which names field, value and limit. */
export class VectronError extends Error {
  constructor(message: string, readonly code: number, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}
/** A field is not as it must be; nothing was stored. */
export class InvalidArgumentError extends VectronError {}
/** No such collection or point, or it is not yours. */
export class NotFoundError extends VectronError {}
/** The name is taken. */
export class AlreadyExistsError extends VectronError {}
/** The token is missing, expired, revoked, or no SDK token. */
export class AuthenticationError extends VectronError {}
/** The token's role or collections do not allow it. */
export class PermissionDeniedError extends VectronError {}
/** The server or a shard cannot be reached now. */
export class UnavailableError extends VectronError {}
/** Over a limit, a quota or a budget. */
export class ResourceExhaustedError extends VectronError {}
/** No answer in time. A write may have been done. */
export class DeadlineExceededError extends VectronError {}
/** A fault of the server. */
export class InternalServerError extends VectronError {}
/** The signal of the call was aborted. A write may have been done. */
export class AbortedError extends VectronError {}

/**
 * upsertBatch ended early. stored: points that were acknowledged; those of requests that were under way
 * may be stored too. Sending everything again is safe.
 */
export class BatchError extends VectronError {
  constructor(readonly stored: number, cause: VectronError) {
    super(`after ${String(stored)} stored points: ${cause.message}`, cause.code, { cause });
  }
}

const kinds = new Map<number, typeof VectronError>([
  [status.INVALID_ARGUMENT, InvalidArgumentError],
  [status.NOT_FOUND, NotFoundError],
  [status.ALREADY_EXISTS, AlreadyExistsError],
  [status.UNAUTHENTICATED, AuthenticationError],
  [status.PERMISSION_DENIED, PermissionDeniedError],
  [status.UNAVAILABLE, UnavailableError],
  [status.RESOURCE_EXHAUSTED, ResourceExhaustedError],
  [status.DEADLINE_EXCEEDED, DeadlineExceededError],
  [status.INTERNAL, InternalServerError],
  [status.CANCELLED, AbortedError],
]);

export function errorOf(code: number, message: string): VectronError {
  return new (kinds.get(code) ?? VectronError)(message, code);
}
