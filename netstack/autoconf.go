// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"hash/maphash"

	"sluice/autoconf"
	"sluice/packet"
	"sluice/trace"
)

const (
	dhcpServerPort  = 67  // RFC 2131 §4.1
	dhcp6ServerPort = 547 // RFC 8415 §7.2
	routerSol       = 133 // RFC 4861 §4.1
)

// newAutoconf is the service of a new network, which says nothing yet.
func newAutoconf() *autoconf.Server {
	var h maphash.Hash // a random number of its own for each
	return autoconf.New(h.Sum64())
}

// configure notes what the network's containers are to be told.
func (c *change) configure(n *network) error {
	b := &n.spec.Bridge
	ready, err := n.conf.Prepare(autoconf.Link{
		MAC: b.MAC, Addrs: n.spec.Addresses, LinkLocal: linkLocal(b.MAC).Addr(), MTU: b.MTU,
	}, n.spec.Autoconf)
	if err != nil {
		return invalid("autoconf: %w", err)
	}
	c.swaps = append(c.swaps, ready.Commit)
	return nil
}

// asksConf reports whether a frame for the host stack may be a question that the
// network's autoconfiguration answers.
func asksConf(v *packet.View) bool {
	switch v.Proto {
	case packet.ProtoUDP:
		return v.DstPort == dhcpServerPort || v.DstPort == dhcp6ServerPort
	case packet.ProtoICMPv6:
		return v.SrcPort>>8 == routerSol
	}
	return false
}

// configures answers a frame at local port p that asks for a configuration. It
// reports whether the frame ends here.
func (o *output) configures(p *port, f *packet.Frame) bool {
	if p.conf == nil || o.from.client == nil || !asksConf(&f.View) {
		return false
	}
	var verdict autoconf.Verdict
	o.reply, verdict = p.conf.Input(o.reply[:0], f, o.from.client, uint32(o.tick))
	if verdict == autoconf.Pass {
		return false
	}
	if r := verdict.Reason(); r != trace.None {
		drop(o.from, r, 1)
	}
	if len(o.reply) > 0 && !p.link.emit(waiting{frame: o.reply, from: o.from.index}) {
		drop(o.from, trace.LocalFull, 1)
	}
	return true
}

// advertise sends what the network has to say now, once a second.
func (n *network) advertise(now uint32) {
	if b := n.conf.Tick(nil, now); len(b) > 0 && !n.link.emit(waiting{frame: b}) {
		n.link.counters.Drop(trace.LocalFull, 1)
	}
}
