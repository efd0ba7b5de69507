// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"sluice/api"
	"sluice/natspec"
	"sluice/packet"
	"sluice/uplink"
)

// Theory of operation.
//
// What a namespace publishes is translated by the namespace itself, for its own
// addresses (natspec.Publish). If it has an uplink to the host, with routes back, the
// host's addresses lead to the containers as well: rules in the uplink's table
// (uplink.Published), for containers that are there, and a socket that holds each port,
// so that no program of the host listens in vain. That nobody has a port is seen by
// binding that socket, before anything is written.
//
// If it has an uplink of type socket instead, the host's addresses lead to the containers
// by sockets that listen, see doors.go.

// maxHeld bounds the ports of the host that are held, a file each.
const maxHeld = 1024

// holding is what publishes a port of the host.
type holding struct {
	port  uplink.Port
	space string
	index int // in the namespace's list
	// socket says that it is a door, see doors.go.
	socket bool
}

// hostUplink is the uplink by which the host reaches the networks of a VRF of a
// namespace; nil: there is none.
func (s *state) hostUplink(space, vrf string) *networkRecord {
	for _, n := range s.in(space) {
		if n.Uplink != nil && n.Uplink.NIC == nil && n.Uplink.HostRoutes && n.VRF == vrf {
			return n
		}
	}
	return nil
}

// ofHost reports whether what is published is for addresses of the host, too.
func (s *state) ofHost(space string, p natspec.Publish) bool {
	out := slices.ContainsFunc(s.in(space), func(n *networkRecord) bool { return s.hostUplink(space, n.VRF) != nil })
	return out && !slices.ContainsFunc(s.in(space), func(n *networkRecord) bool { return slices.Contains(n.Gateways, p.Addr) })
}

// published is what the host is to translate for an uplink.
func (s *state) published(n *networkRecord) (out []uplink.Published) {
	rec := s.namespace(n.space())
	if rec == nil || !n.Uplink.HostRoutes {
		return nil
	}
	for _, p := range rec.Connections.Published {
		if !s.ofHost(n.space(), p) {
			continue
		}
		for _, to := range firstOfEach(s.behindUplink(n, p.To)) {
			if !p.Addr.IsValid() || p.Addr.Is4() == to.Is4() {
				out = append(out, uplink.Published{
					Proto: natspec.ProtocolName(p.Proto), Addr: p.Addr, First: p.Ports.Min, Last: p.Ports.Max, To: to, ToFirst: p.ToPorts.Min,
				})
			}
		}
	}
	return out
}

// behindUplink are the addresses of an attachment, if the host reaches it by an uplink.
func (s *state) behindUplink(n *networkRecord, name string) (out []netip.Addr) {
	for _, a := range s.attachedIn(n.space()) {
		if of := s.network(a.Network); a.Name == name && a.State == api.StateReady && !a.Uplink && of != nil && of.VRF == n.VRF {
			out = append(out, a.addrs()...)
		}
	}
	return out
}

// firstOfEach are the first addresses of each family.
func firstOfEach(all []netip.Addr) (out []netip.Addr) {
	for _, a := range all {
		if !slices.ContainsFunc(out, func(o netip.Addr) bool { return o.Is4() == a.Is4() }) {
			out = append(out, a)
		}
	}
	return out
}

// holdings are the ports of the host that all namespaces publish. The error names two
// that want the same one.
func (s *state) holdings() (out []holding, err error) {
	all := s.onHost()
	for i, p := range all {
		for _, o := range all[:i] {
			if o.space != p.space && o.Overlaps(p.Publish) {
				return nil, &publishFault{p.holding, fmt.Errorf("%s of the host is published for %s of namespace %s already", o.Outside(), o.To, o.space)}
			}
		}
		if !p.socket && s.heldElsewhere(p.To) {
			continue
		}
		for port := int(p.Ports.Min); port <= int(p.Ports.Max); port++ {
			p.port = uplink.Port{Proto: natspec.ProtocolName(p.Proto), Addr: p.Addr, Number: uint16(port)}
			if out = append(out, p.holding); len(out) > maxHeld {
				return nil, &publishFault{p.holding, fmt.Errorf("more than %d ports of the host are not supported", maxHeld)}
			}
		}
	}
	return out, nil
}

// heldElsewhere says whether the runtime of an attachment holds its ports of the host itself.
func (s *state) heldElsewhere(name string) bool {
	rec := s.find(func(a *attachmentRecord) bool { return a.Name == name })
	return rec != nil && rec.CNI != nil && rec.CNI.PortsHeld
}

// hostPublish is a line of what a namespace publishes on the host's addresses.
type hostPublish struct {
	natspec.Publish
	holding
}

// onHost is what all namespaces publish on the host's addresses.
func (s *state) onHost() (out []hostPublish) {
	for _, space := range s.spaces() {
		for i, p := range s.namespace(space).Connections.Published {
			socket := p.Proto != packet.ProtoSCTP && s.bySocketOf(space, p)
			if socket || s.ofHost(space, p) {
				out = append(out, hostPublish{p, holding{space: space, index: i, socket: socket}})
			}
		}
	}
	return out
}

// publishFault is an error of one line of what a namespace publishes.
type publishFault struct {
	at  holding
	err error
}

func (f *publishFault) Error() string { return f.err.Error() }
func (f *publishFault) Unwrap() error { return f.err }

// hold holds what a state, which is not committed yet, wants of the host's ports. If it
// can't, nothing has changed.
func (a *Agent) hold(s *state) error {
	all, err := s.holdings()
	if err != nil || len(all) == 0 {
		return err
	}
	if i := slices.IndexFunc(all, func(h holding) bool { return !h.socket }); i >= 0 {
		if err := uplink.Program(); err != nil {
			return &publishFault{all[i], err}
		}
	}
	var fresh []uplink.Port
	for _, h := range all {
		if a.holds(h.port) {
			continue
		}
		if err := a.occupy(h); err != nil {
			a.release(fresh)
			return &publishFault{h, err}
		}
		fresh = append(fresh, h.port)
	}
	return nil
}

// holds reports whether the agent has a port of the host, in whatever way.
func (a *Agent) holds(p uplink.Port) bool { return a.held[p] != nil || a.plane.doors.has(p) }

// occupy holds one port: by a socket of nobody's, or one that listens.
func (a *Agent) occupy(h holding) error {
	if h.socket {
		f, err := a.host.Listen(h.port, a.plane.dialler.accepting)
		if err != nil {
			return err
		}
		return a.plane.doors.add(h.port, f)
	}
	f, err := a.host.Hold(h.port)
	if f != nil {
		a.held[h.port] = f
	}
	return err
}

func (a *Agent) release(ports []uplink.Port) {
	for _, p := range ports {
		if f := a.held[p]; f != nil {
			_ = f.Close()
			delete(a.held, p)
		}
	}
	a.plane.doors.shut(ports)
}

// holdCommitted holds what the committed state wants, as far as it can, and no more.
func (a *Agent) holdCommitted() {
	st, err := a.store.read()
	if err != nil {
		return
	}
	all, err := st.holdings()
	if err != nil {
		a.log.Error("published ports", "err", err)
	}
	a.release(a.unwanted(all))
	faults := make(map[string]string)
	for _, h := range all {
		if a.holds(h.port) {
			continue
		}
		if err := a.occupy(h); err != nil {
			faults[h.space] = "published " + err.Error()
			a.log.Warn("a published port is not held", "namespace", h.space, "err", err)
		}
	}
	a.unheld.Store(&faults)
	a.aim(st)
}

// unwanted are ports that are held and should not be, or not in this way.
func (a *Agent) unwanted(all []holding) (out []uplink.Port) {
	wanted := make(map[uplink.Port]bool) // by whether they are doors
	for _, h := range all {
		wanted[h.port] = h.socket
	}
	for p := range a.held {
		if door, ok := wanted[p]; !ok || door {
			out = append(out, p)
		}
	}
	for _, p := range a.plane.doors.ports() {
		if !wanted[p] {
			out = append(out, p)
		}
	}
	return out
}

// republish dresses the host after attachments came or went, if any of them has a
// published port.
func (a *Agent) republish(ctx context.Context, recs ...*attachmentRecord) {
	st, err := a.store.read()
	if err != nil {
		return
	}
	a.aim(st)
	for _, rec := range recs {
		n := st.network(rec.Network)
		if n == nil || rec.Uplink || st.hostUplink(n.space(), n.VRF) == nil {
			continue
		}
		of := st.namespace(n.space()).Connections.Published
		if slices.ContainsFunc(of, func(p natspec.Publish) bool { return p.To == rec.Name }) {
			a.redress(ctx, true)
			return
		}
	}
}

// holds has the ports held that the file publishes.
func (d *declaration) holds() error {
	if d.t.hold == nil {
		return nil
	}
	err := d.t.hold(&d.is)
	fault, ok := errors.AsType[*publishFault](err)
	if !ok {
		return err
	}
	for i := range d.c.Namespaces {
		if d.c.Namespaces[i].Name == fault.at.space {
			return d.fault(fmt.Sprintf("namespaces[%d].publish[%d]", i, fault.at.index), err)
		}
	}
	return err
}

// holds has the ports held that commands publish.
func (e *editor) holds() error {
	if !e.published || e.t.hold == nil {
		return nil
	}
	err := e.t.hold(e.st)
	if fault, ok := errors.AsType[*publishFault](err); ok {
		p := e.st.namespace(fault.at.space).Connections.Published[fault.at.index]
		return refuse(api.CodeInUse, "commands", "port %s: %s", p.Outside(), err)
	}
	return err
}

// closeHeld lets go of all ports.
func closeHeld(held map[uplink.Port]*os.File) {
	for _, f := range held {
		_ = f.Close()
	}
}
