// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"fmt"
)

// A spare is a second process that is started, sandboxed and waits: it has no port and
// no snapshot, and has mapped the file of connections without reading one of them.
// When the first one dies, what is left to do is to give it the path, the sockets and
// the snapshot. It is tied: it ends with this side's connection, so no other agent
// ever finds one, and one that has been given nothing works on nothing.

// Spare is a process that stands by. It is not safe for concurrent use.
type Spare struct {
	client *Client
	path   *controlPath
}

// NewSpare starts a process that stands by, to take over from one that was started
// with the same configuration. The caller ends it with Promote or Close.
func NewSpare(ctx context.Context, c StartConfig) (*Spare, error) {
	n, l, err := start(ctx, c, waiting)
	if err != nil {
		return nil, fmt.Errorf("start spare dataplane: %w", err)
	}
	s := &Spare{n, l}
	if _, err := n.call(ctx, message{kind: kindStandBy}, false); err != nil {
		s.Close()
		return nil, fmt.Errorf("start spare dataplane: %w", err)
	}
	return s, nil
}

// PID is the process's number as this process sees it.
func (s *Spare) PID() int { return s.client.PID() }

// Done is closed when the process is gone.
func (s *Spare) Done() <-chan struct{} { return s.client.Done() }

// Promote makes the process what Start returns. The one before must be gone. On an
// error the spare is closed.
func (s *Spare) Promote(ctx context.Context) (*Client, error) {
	if err := s.client.release(ctx, s.path); err != nil {
		return nil, fmt.Errorf("promote spare dataplane: %w", err)
	}
	return s.client, nil
}

// Close ends the process.
func (s *Spare) Close() {
	s.path.remove()
	s.client.Kill()
	s.client.Close()
}

// SparePath is where a spare's control socket is, beside the path of the others': what
// an agent that was killed may have left there.
func SparePath(listen string) string { return listen + waiting }
