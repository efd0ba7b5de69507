// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"os"

	"sluice/netstack"
)

// Client is an agent's end of the control connection to one dataplane. It is
// safe for concurrent use.
type Client struct{}

// Start starts a dataplane and waits until it is sandboxed and ready.
func Start(ctx context.Context, c StartConfig) (*Client, error) { return nil, errors.ErrUnsupported }

// Connect adopts the dataplane that listens at path.
func Connect(path string) (*Client, error) { return nil, errors.ErrUnsupported }

// Handover starts a new dataplane with what old has, then stops old.
func Handover(ctx context.Context, old *Client, c StartConfig) (*Client, error) {
	return nil, errors.ErrUnsupported
}

// Evict kills the process that listens at path, whatever state it is in.
func Evict(path string) error { return errors.ErrUnsupported }

// BuildID names this program's build.
func BuildID() string { return "" }

// Main is what the program runs for its arguments after "dataplane".
func Main(args []string) int { return 2 }

// Apply makes the snapshot real: all of it or nothing.
func (c *Client) Apply(ctx context.Context, s *netstack.Snapshot, newFDs map[uint16]*os.File) error {
	return errors.ErrUnsupported
}

// FDB returns the stations that the namespace's bridge knows.
func (c *Client) FDB(ctx context.Context, namespace string) ([]FDBEntry, error) {
	return nil, errors.ErrUnsupported
}

// Neighbours returns the host stack's ARP and ND table.
func (c *Client) Neighbours(ctx context.Context, namespace string) ([]Neighbour, error) {
	return nil, errors.ErrUnsupported
}

// Sockets returns the host stack's endpoints.
func (c *Client) Sockets(ctx context.Context, namespace string) ([]Socket, error) {
	return nil, errors.ErrUnsupported
}

// Status tells how the process is.
func (c *Client) Status(ctx context.Context) (Status, error) { return Status{}, errors.ErrUnsupported }

// Ping returns nil if the process answers.
func (c *Client) Ping(ctx context.Context) error { return errors.ErrUnsupported }

// Stop ends the process in good order and waits until it is gone.
func (c *Client) Stop(ctx context.Context) error { return errors.ErrUnsupported }

// Kill ends the process at once and waits until it is gone.
func (c *Client) Kill() error { return errors.ErrUnsupported }

// Close closes the connection and lets the process go on.
func (c *Client) Close() error { return errors.ErrUnsupported }

// Done is closed when the process is gone or the connection broke; Err says why.
func (c *Client) Done() <-chan struct{} { return nil }

// Err is nil until Done is closed, and then says why.
func (c *Client) Err() error { return nil }

// Events are what the dataplane tells unasked. The channel is closed with Done.
func (c *Client) Events() <-chan Event { return nil }

// PID is the process's number as this process sees it.
func (c *Client) PID() int { return 0 }

// Build is the process's BuildID.
func (c *Client) Build() string { return "" }

// Adopted is what a process that was already running brought with it: its
// snapshot and dups of its port sockets, which the caller now owns. Both are nil
// after Start.
func (c *Client) Adopted() (*netstack.Snapshot, map[uint16]*os.File) { return nil, nil }

// Counters is the counter file of the adopted process, owned by the client;
// nil after Start or if it has none.
func (c *Client) Counters() *os.File { return nil }
