// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/trace"
	"sluice/veth"
)

// sockets are the agent's own dups of the ports' packet sockets: what a new
// dataplane is given, so that frames which arrive while there is none wait in
// the kernel. It owns the files.
type sockets struct {
	mu sync.Mutex
	// +checklocks:mu
	byPort map[uint16]*os.File
}

func newSockets() *sockets { return &sockets{byPort: make(map[uint16]*os.File)} }

// add takes ownership of the files.
func (s *sockets) add(files map[uint16]*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for port, f := range files {
		if old := s.byPort[port]; old != nil && old != f {
			old.Close()
		}
		s.byPort[port] = f
	}
}

// keep closes all files but those of the given ports. The kernel lets all processors pass
// before such a socket is closed: nobody waits for that.
func (s *sockets) keep(ports map[uint16]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var over []*os.File
	for port, f := range s.byPort {
		if !ports[port] {
			over = append(over, f)
			delete(s.byPort, port)
		}
	}
	go func() {
		for _, f := range over {
			_ = f.Close()
		}
	}()
}

// of returns the files of the given ports, which stay owned by s.
func (s *sockets) of(ports map[uint16]bool) map[uint16]*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[uint16]*os.File, len(ports))
	for port := range ports {
		if f := s.byPort[port]; f != nil {
			out[port] = f
		}
	}
	return out
}

// countOverruns adds what the kernel dropped since the last call, because a
// socket's buffer was full, to the ports' counters. PACKET_STATISTICS of
// packet(7) is reset by reading, so nothing is counted twice.
func (s *sockets) countOverruns(c *trace.Counters) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for port, f := range s.byPort {
		if _, drops, err := veth.Stats(int(f.Fd())); err == nil {
			c.Port(port).Drop(trace.RxOverrun, uint64(drops))
		}
	}
}

// boundTo says whether a packet socket is still bound to the interface with this
// index: the kernel unbinds it when the interface goes.
func boundTo(f *os.File, index int) bool {
	name, err := unix.Getsockname(int(f.Fd()))
	if err != nil {
		return false
	}
	link, ok := name.(*unix.SockaddrLinklayer)
	return ok && link.Ifindex == index
}

// openPort opens the packet socket of an attachment on an interface.
func openPort(ns netns.NsHandle, ifname, attachment string, o veth.SocketOptions) (*os.File, error) {
	f, err := veth.OpenSocket(ns, ifname, o)
	if err != nil {
		return nil, fmt.Errorf("attachment %s: %w", attachment, err)
	}
	return f, nil
}
