// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sluice/conntrack"
	"sluice/dataplane"
)

// besideConns is the suffix of the file of connections that a dataplane is handed,
// while the one before still works on its own.
const besideConns = ".next"

func (a *Agent) connEntries() int {
	if a.opts.ConnEntries == 0 {
		return conntrack.DefaultEntries
	}
	return a.opts.ConnEntries
}

// openConnections opens the file that dataplanes keep their connections in, each after
// the one before.
func (a *Agent) openConnections() error {
	f, err := conntrack.CreateFile(a.dir.connections(), a.connEntries())
	if err != nil {
		return err
	}
	a.plane.start.Connections = f
	return nil
}

// adoptConnections makes the file that a found dataplane works on the one that its
// successor goes on with: the path may lead to another, of another size, or from
// before a hand-over that was interrupted.
func (a *Agent) adoptConnections(c *dataplane.Client) {
	theirs := c.ConnectionFile()
	if theirs == nil || sameFile(theirs, a.plane.start.Connections) {
		return
	}
	a.nameConnections(theirs, a.dir.connections()+besideConns)
	if f, err := dupFile(theirs); err == nil {
		_ = a.plane.start.Connections.Close()
		a.plane.start.Connections = f
	}
}

// dupFile is the same open file, closed by itself.
func dupFile(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("dup %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// settleConnections follows a hand-over: what the new dataplane works on is the file
// from now on, or there is no such thing.
func (a *Agent) settleConnections(fresh *os.File, beside string, done bool) {
	switch {
	case fresh == nil:
	case done:
		a.nameConnections(fresh, beside)
		_ = a.plane.start.Connections.Close()
		a.plane.start.Connections = fresh
	default:
		_ = fresh.Close()
		_ = os.Remove(beside)
	}
}

// nameConnections gives a file that may be beside its path that path. If that does
// not work, connections end with the next start of everything.
func (a *Agent) nameConnections(f *os.File, beside string) {
	if at, err := os.Open(beside); err == nil {
		same := sameFile(at, f)
		_ = at.Close()
		if same {
			err = os.Rename(beside, a.dir.connections())
		}
		if err != nil {
			a.log.Warn("file of connections not renamed", "err", err)
		}
	}
}
