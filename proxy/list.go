// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"

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

// Entries lists what there is, in no order.
func (p *Proxy) Entries() []Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Entry, 0, len(p.conns)+len(p.flows))
	for _, c := range p.conns {
		e := Entry{
			Proto: dial.TCP, Port: c.port, Ended: c.closed.Load(),
			Inside: addrPort(c.id.RemoteAddress, c.id.RemotePort), Outside: addrPort(c.id.LocalAddress, c.id.LocalPort),
		}
		if ep := c.shown.Load(); ep != nil {
			e.Endpoint = *ep
		}
		all = append(all, e)
	}
	for _, f := range p.flows {
		all = append(all, Entry{Proto: f.key.proto, Port: f.port, Inside: f.key.src, Outside: f.key.dst, Replied: f.heard.Load()})
	}
	return all
}
