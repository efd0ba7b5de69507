// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"sluice/dial"
)

// TestListOfMany: who carries packets waits for a part of a list at most, and what comes
// and goes meanwhile does not disturb it.
//
// +checklocksignore: nobody else knows the proxy.
func TestListOfMany(t *testing.T) {
	const conns, flows = 1000, 500
	p := &Proxy{conns: make(map[stack.TransportEndpointID]*conn), flows: make(map[flowKey]*flow)}
	id := func(port int) stack.TransportEndpointID {
		return stack.TransportEndpointID{LocalPort: 443, RemotePort: uint16(port), RemoteAddress: tcpip.AddrFrom4([4]byte{10, 0, 0, 1})}
	}
	for i := range conns {
		p.conns[id(i)] = &conn{id: id(i), port: 7}
	}
	for i := range flows {
		k := flowKey{proto: dial.UDP, src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), uint16(i))}
		p.flows[k] = &flow{key: k}
	}
	parts := 0
	all := p.entries(func() {
		parts++
		p.mu.Lock() // never comes back if it is held between the parts
		defer p.mu.Unlock()
		delete(p.conns, id(1<<15+parts-1))
		p.conns[id(1<<15+parts)] = &conn{id: id(1<<15 + parts)}
	})
	if want := (conns + flows) / listed; parts < want {
		t.Errorf("%d parts, want %d", parts, want)
	}
	lasting := make(map[Entry]int)
	for _, e := range all {
		if e.Inside.Port() < 1<<15 {
			lasting[e]++
		}
	}
	for e, n := range lasting {
		if n != 1 {
			t.Errorf("%+v is listed %d times", e, n)
		}
	}
	if len(lasting) != conns+flows {
		t.Errorf("%d entries, want %d", len(lasting), conns+flows)
	}
}
