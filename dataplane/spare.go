// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// A spare is a second process that is started, sandboxed and waits: it has no port and
// no snapshot, and has mapped the file of connections without reading one of them.
// When the first one dies, what is left to do is to give it the path, the sockets and
// the snapshot. Until then it has a path of its own, where the next agent finds it if
// this one is killed (FindSpare); if none comes within some seconds it ends. One that
// has been given nothing works on nothing.

// DefaultAlone is how long a spare waits for another agent: longer than any supervisor
// takes to start one, and than that takes to get there.
const DefaultAlone = 10 * time.Second

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

// FindSpare adopts the spare that an agent before this one has left. The error wraps
// ErrNotRunning if there is none. One that was not started as c says, by this program,
// or that does not answer in time, is ended, which is an error too.
func FindSpare(ctx context.Context, c StartConfig) (*Spare, error) {
	s, err := findSpare(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("find spare dataplane: %w", err)
	}
	return s, nil
}

func findSpare(ctx context.Context, c StartConfig) (*Spare, error) {
	at := SparePath(c.Listen)
	cn, p, err := dialPath(at)
	if err != nil {
		return nil, err
	}
	s := &Spare{newClient(cn, p), &controlPath{fd: -1, path: c.Listen, at: at}}
	if err = s.client.greet(ctx); err == nil {
		err = s.client.standsByFor(ctx, c)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// errOtherSpare says that a process does not stand by for what it is wanted for.
var errOtherSpare = errors.New("it was started by another program, or otherwise")

// standsByFor checks that the process is what NewSpare would start.
func (c *Client) standsByFor(ctx context.Context, want StartConfig) error {
	own, o := BuildID(), want.options()
	if own == "unknown" || c.other.Build != own || !c.other.StandsBy || c.other.Settings != o.settings() {
		return errOtherSpare
	}
	s, files, counters, err := c.inventory(ctx)
	defer closeAll(files, counters)
	if err != nil {
		return err
	}
	conns, err := c.connFile(ctx)
	if err != nil {
		return err
	}
	defer closeAll(nil, conns)
	if s != nil || !isFile(counters, want.Counters) || !isFile(conns, want.Connections) {
		return errOtherSpare
	}
	return nil
}

// isFile reports whether two files are one, or both are none.
func isFile(a, b *os.File) bool {
	if a == nil || b == nil {
		return a == b
	}
	as, err := a.Stat()
	if err != nil {
		return false
	}
	bs, err := b.Stat()
	return err == nil && os.SameFile(as, bs)
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
