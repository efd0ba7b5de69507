// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"net/http"
)

// Code is the kind of an error, for programs to decide on. It is stable text.
type Code string

// The codes. Empty is not a code.
const (
	// CodeInvalid: the request contradicts itself or the rules of a field.
	CodeInvalid Code = "invalid"
	// CodeOutOfRange: well-formed, but outside what is allowed here: an address
	// outside the subnet, an MTU above the network's.
	CodeOutOfRange Code = "out_of_range"
	// CodeNotFound: no such namespace, network, attachment.
	CodeNotFound Code = "not_found"
	// CodeExists: the name or the interface is taken.
	CodeExists Code = "exists"
	// CodeInUse: somebody holds the address, the MAC or the network.
	CodeInUse Code = "in_use"
	// CodeExhausted: no address or port number is left.
	CodeExhausted Code = "exhausted"
	// CodeUnavailable: the dataplane is away; the same request may work later.
	CodeUnavailable Code = "unavailable"
	// CodeInternal: something the daemon did not expect.
	CodeInternal Code = "internal"
)

// Status returns the HTTP status that carries the code.
func (c Code) Status() int {
	switch c {
	case CodeInvalid:
		return http.StatusBadRequest
	case CodeOutOfRange:
		return http.StatusUnprocessableEntity
	case CodeNotFound:
		return http.StatusNotFound
	case CodeExists, CodeInUse:
		return http.StatusConflict
	case CodeExhausted:
		return http.StatusInsufficientStorage
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	case CodeInternal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// Error is what the daemon refused and why.
type Error struct {
	Code Code `json:"code"`
	// Field is the request's field at fault, by its JSON name, or empty.
	Field string `json:"field,omitempty"`
	// Message is one sentence for people: lower case, no full stop.
	Message string `json:"message"`
	// Index is that of the command at fault in a CommandRequest; nil: none is.
	Index *int `json:"index,omitempty"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// CodeOf returns the code of an error of the daemon, CodeInternal for any other
// error, and the empty code for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// What stands between a client and the daemon.
var (
	// ErrDaemonDown: there is no socket, or nobody listens on it.
	ErrDaemonDown = errors.New("sluiced is not running")
	// ErrPermission: the socket may not be opened by this user.
	ErrPermission = errors.New("permission denied")
)
