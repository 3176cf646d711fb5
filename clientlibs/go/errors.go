package vectron

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What errors of calls wrap: errors.Is(err, ErrNotFound).
var (
	ErrInvalidArgument   = errors.New("invalid argument")
	ErrNotFound          = errors.New("not found")
	ErrAlreadyExists     = errors.New("already exists")
	ErrAuthentication    = errors.New("authentication failed")
	ErrPermissionDenied  = errors.New("permission denied")
	ErrResourceExhausted = errors.New("resource exhausted")
	ErrDeadlineExceeded  = errors.New("deadline exceeded")
	ErrUnavailable       = errors.New("unavailable")
	ErrInternalServer    = errors.New("internal server error")
)

var byCode = map[codes.Code]error{
	codes.InvalidArgument:   ErrInvalidArgument,
	codes.NotFound:          ErrNotFound,
	codes.AlreadyExists:     ErrAlreadyExists,
	codes.Unauthenticated:   ErrAuthentication,
	codes.PermissionDenied:  ErrPermissionDenied,
	codes.ResourceExhausted: ErrResourceExhausted,
	codes.DeadlineExceeded:  ErrDeadlineExceeded,
	codes.Unavailable:       ErrUnavailable,
	codes.Internal:          ErrInternalServer,
}

// Error is what a call failed with: the gRPC code and the server's sentence, which names field, value
// and limit. It wraps one of the errors above.
type Error struct {
	Code    codes.Code
	Message string
	kind    error
}

func (e *Error) Error() string {
	if e.kind == nil {
		return fmt.Sprintf("vectron: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("vectron: %v: %s", e.kind, e.Message)
}

// Unwrap gives the kind, for errors.Is.
func (e *Error) Unwrap() error { return e.kind }

func toError(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	return &Error{Code: s.Code(), Message: s.Message(), kind: byCode[s.Code()]}
}

// BatchError is what UpsertBatch ended early with. Stored points were acknowledged; those of requests that
// were under way may be stored too. Sending everything again does no harm.
type BatchError struct {
	Stored int
	Err    error
}

func (e *BatchError) Error() string {
	return fmt.Sprintf("after %d stored points: %v", e.Stored, e.Err)
}

// Unwrap gives the cause.
func (e *BatchError) Unwrap() error { return e.Err }
