// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"runtime"

	"gvisor.dev/gvisor/pkg/tcpip"

	"sluice/dial"
)

// Entry is a connection or a flow, as a list shows it.
type Entry struct {
	Proto   uint8
	Port    uint16         // of the container
	Inside  netip.AddrPort // the container's; of echo the port is the identifier
	Outside netip.AddrPort // whom it talks to
	// Endpoint is the stack's, of TCP; nil while it is dialled.
	Endpoint tcpip.Endpoint
	// Ended: of TCP, the stack is still to finish. Replied: of others, there was an answer.
	Ended, Replied bool
}

// listed is how many entries are described at once: of some microseconds, since whoever
// carries packets waits for the lock.
const listed = 64

// Entries lists what there is, in no order. What comes or goes meanwhile may be in it.
func (p *Proxy) Entries() []Entry { return p.entries(runtime.Gosched) }

// entries calls pause between its parts, without the lock.
func (p *Proxy) entries(pause func()) []Entry {
	p.mu.Lock()
	room := len(p.conns) + len(p.flows)
	p.mu.Unlock()
	all := make([]Entry, 0, room)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		all = append(all, c.describe())
		p.rest(len(all), pause)
	}
	for _, f := range p.flows {
		all = append(all, Entry{Proto: f.key.proto, Port: f.port, Inside: f.key.src, Outside: f.key.dst, Replied: f.heard.Load()})
		p.rest(len(all), pause)
	}
	return all
}

// rest gives the lock away for a moment, after each part of a list.
//
// +checklocks:p.mu
func (p *Proxy) rest(n int, pause func()) {
	if n%listed == 0 {
		p.mu.Unlock()
		pause()
		p.mu.Lock()
	}
}

func (c *conn) describe() Entry {
	e := Entry{
		Proto: dial.TCP, Port: c.port, Ended: c.closed.Load(),
		Inside: addrPort(c.id.RemoteAddress, c.id.RemotePort), Outside: addrPort(c.id.LocalAddress, c.id.LocalPort),
	}
	if ep := c.shown.Load(); ep != nil {
		e.Endpoint = *ep
	}
	return e
}
