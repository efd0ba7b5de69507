// SPDX-License-Identifier: Apache-2.0

package dataplane

import "errors"

// What an agent decides on. Each is wrapped with its circumstances.
var (
	// ErrNotRunning says that nobody listens at the control path: start one.
	ErrNotRunning = errors.New("no dataplane is running")
	// ErrUnresponsive says that somebody listens but does not answer in time,
	// as a stopped process would: Evict it and start another.
	ErrUnresponsive = errors.New("the dataplane does not answer")
	// ErrProtocol says that the other side sent what it must not: it is of
	// another make, or it was taken over. Kill it.
	ErrProtocol = errors.New("control protocol broken")
	// ErrSkew says that the other side is of another version and would take the
	// request for something else: hand over to this version.
	ErrSkew = errors.New("dataplane of another version")
	// ErrReplaced says that another agent took the control connection over.
	ErrReplaced = errors.New("another agent took over")
	// ErrExited says that the process has ended.
	ErrExited = errors.New("the dataplane has ended")
	// ErrClosed says that this side closed the connection.
	ErrClosed = errors.New("control connection closed")
)

// RefusedError is the dataplane's "no" to one request. The connection and what
// was configured before are as good as they were.
type RefusedError struct {
	// Field names the part of the request that is wrong, as "namespace" or
	// "snapshot"; empty if it was none in particular.
	Field string `json:"field,omitempty"`
	// Message says what is wrong. It comes from the sandbox: show it to people,
	// decide nothing by it.
	Message string `json:"message"`
}

// Error names the field, if any, and what is wrong with it.
func (e *RefusedError) Error() string {
	if e.Field == "" {
		return "dataplane refused: " + e.Message
	}
	return "dataplane refused " + e.Field + ": " + e.Message
}
