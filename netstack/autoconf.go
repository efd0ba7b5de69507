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
	return c.asks(n)
}

// asks notes what the network's device is to ask of its link.
func (c *change) asks(n *network) error {
	if n.learn == nil && !n.spec.Learn.On() {
		return nil
	}
	if n.learn == nil {
		var h maphash.Hash
		n.learn = autoconf.NewLearner(h.Sum64())
	}
	b := &n.spec.Bridge
	commit, err := n.learn.Change(autoconf.Link{MAC: b.MAC, LinkLocal: linkLocal(b.MAC).Addr(), MTU: b.MTU}, n.spec.Learn)
	if err != nil {
		return invalid("learn: %w", err)
	}
	c.swaps = append(c.swaps, commit)
	return nil
}

// learns shows a frame at local port p to who asked the link something. It reports
// whether the frame ends here.
func (o *output) learns(p *port, f *packet.Frame) bool {
	n := p.space.ns.net
	taken, changed := p.learn.Input(f, n.boot.Load(), func(frame []byte) { p.link.say(frame) })
	if changed {
		n.learned.tell()
	}
	return taken
}

// say sends a frame of the network's own.
func (l *hostLink) say(frame []byte) {
	if !l.emit(waiting{frame: frame}) {
		l.counters.Drop(trace.LocalFull, 1)
	}
}

// inquire asks what is due, once a second.
func (n *network) inquire(net *Netstack) {
	if n.learn != nil && n.learn.Tick(net.boot.Load(), n.link.say) {
		net.learned.tell()
	}
}

// Learned is what a network's device was told by its link; nil if it asks nothing, or
// is gone. Times are seconds of CLOCK_BOOTTIME.
func (ns *Namespace) Learned(network string) *autoconf.Learned {
	n := ns.space().network(network)
	if n == nil || n.learn == nil {
		return nil
	}
	return new(n.learn.Learned())
}

// signal says that something has changed, to one who looks.
type signal chan struct{}

// tell never blocks.
func (s signal) tell() {
	select {
	case s <- struct{}{}:
	default:
	}
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
	if b := n.conf.Tick(nil, now); len(b) > 0 {
		n.link.say(b)
	}
}
