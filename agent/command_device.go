// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/config"
	"sluice/iproute"
	"sluice/routing"
)

// neighbour is `neigh`: static ones of the namespace's networks.
func (e *editor) neighbour(words []string) error {
	c, err := iproute.ParseNeighbour(words)
	if err != nil {
		return err
	}
	if c.Dev != "" && !e.isNetwork(c.Dev) {
		return noDevice(c.Dev)
	}
	own := e.own().Neighbours
	if c.Op == routing.OpFlush {
		e.forgetAll(&c)
		if !c.Flushes("permanent") {
			return nil
		}
		return e.setNeighbours(slices.DeleteFunc(slices.Clone(own), func(n iproute.Neighbour) bool {
			return (c.Dev == "" || c.Dev == n.Dev) && (!c.To.IsValid() || c.To.Contains(n.Addr))
		}))
	}
	return e.changeNeighbour(own, &c)
}

func (e *editor) changeNeighbour(own []iproute.Neighbour, c *iproute.NeighbourChange) error {
	is := func(n iproute.Neighbour) bool { return n.Addr == c.Addr && n.Dev == c.Dev }
	if e.attachedAt(c.Dev, c.Addr) {
		return errNotPermitted // a container's, which is known
	}
	switch there := slices.ContainsFunc(own, is); {
	case there && c.Op == routing.OpAdd:
		return routing.ErrExist
	case !there && c.Op == routing.OpDelete && slices.ContainsFunc(e.known(c.Dev), func(l learned) bool { return l.addr == c.Addr }):
		e.forgotten = append(e.forgotten, forgotten{c.Dev, c.Addr})
		return nil
	case !there && c.Op != routing.OpAdd && c.Op != routing.OpReplace:
		return routing.ErrNoEnt
	case !there && len(own) >= config.MaxEntries:
		return fmt.Errorf("neighbours: %w at %d", routing.ErrLimit, config.MaxEntries)
	}
	return e.setNeighbours(withNeighbour(slices.DeleteFunc(slices.Clone(own), is), c))
}

// withNeighbour adds what a change brings.
func withNeighbour(all []iproute.Neighbour, c *iproute.NeighbourChange) []iproute.Neighbour {
	if c.Op == routing.OpDelete {
		return all
	}
	return append(all, c.Neighbour)
}

// forgotten is a neighbour that the dataplane has learned.
type forgotten struct {
	network string
	addr    netip.Addr
}

// forgetAll notes the learned neighbours that a flush means.
func (e *editor) forgetAll(c *iproute.NeighbourChange) {
	for _, n := range e.st.in(e.space) {
		if c.Dev != "" && c.Dev != n.Name {
			continue
		}
		for _, l := range e.known(n.Name) {
			if (!c.To.IsValid() || c.To.Contains(l.addr)) && c.Flushes(l.state) {
				e.forgotten = append(e.forgotten, forgotten{n.Name, l.addr})
			}
		}
	}
}

// known are the learned neighbours of a network as they were when this was asked
// first: a batch may ask for each of its lines.
func (e *editor) known(network string) []learned {
	all, asked := e.heard[network]
	if !asked {
		all = e.learned(network)
		e.heard[network] = all
	}
	return all
}

// learned is a neighbour of which the dataplane knows more than was set.
type learned struct {
	addr  netip.Addr
	state string
}

// listener returns what asks for the neighbours of a network that were not set, as
// far as the dataplane answers. Everybody waits for the caller, so all its answers
// together may take as long as one.
func (a *Agent) listener(ctx context.Context, space string) func(network string) []learned {
	left := queryTimeout
	return func(network string) (out []learned) {
		c := a.plane.client.Load()
		if c == nil || left <= 0 {
			return nil
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		all, err := c.Neighbours(ctx, space, network)
		left -= time.Since(begin)
		if err != nil || len(all) > maxTold {
			return nil
		}
		for _, n := range all {
			if state := word(n.State, neighStates()); state != "permanent" {
				out = append(out, learned{n.Addr, state})
			}
		}
		return out
	}
}

// forget lets the dataplane forget neighbours. What it has forgotten by itself, or
// with its life, is no fault. As in listener, it all takes no longer than one answer.
func (a *Agent) forget(ctx context.Context, space string, all []forgotten) {
	c := a.plane.client.Load()
	if c == nil || len(all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	for i, f := range all {
		if _, err := c.Forget(ctx, space, f.network, f.addr); err != nil {
			a.log.Warn("neighbours not forgotten", "network", f.network, "left", len(all)-i, "err", err)
			return
		}
	}
}

func (e *editor) setNeighbours(all []iproute.Neighbour) error {
	e.record(e.space).Neighbours = all
	e.records[e.space] = true
	return nil
}

func (e *editor) isNetwork(name string) bool {
	n := e.st.network(name)
	return n != nil && n.space() == e.space
}

// attachedAt reports whether an address of a network is a container's or the gateway's.
func (e *editor) attachedAt(network string, a netip.Addr) bool {
	return e.st.known(network)(a)
}

// vrf is `vrf add` and `vrf del`.
func (e *editor) vrf(words []string) error {
	c, err := iproute.ParseVRF(words, e.own().names())
	if err != nil {
		return err
	}
	return e.changeLink(&c)
}

// link is `link`.
func (e *editor) link(words []string) error {
	c, err := iproute.ParseLink(words, e.own().names())
	if err != nil {
		return err
	}
	return e.changeLink(&c)
}

func (e *editor) changeLink(c *iproute.LinkChange) error {
	switch {
	case c.Op == iproute.LinkAdd && c.Type == iproute.TypeVRF:
		return e.addVRF(c)
	case c.Op == iproute.LinkAdd:
		return e.addLink(c)
	case c.Op == iproute.LinkDelete:
		return e.deleteLink(c)
	}
	return e.setLink(c)
}

// number takes a number for a new device.
func (e *editor) number() (uint16, error) {
	n := e.st.freePort()
	if n == 0 {
		return 0, errNoPort()
	}
	return n, nil
}

// isNamed reports whether a new device would take the name of another, or that by which
// rules and commands mean a container's port.
func (e *editor) isNamed(namespace, name string) bool {
	if e.st.isDevice(namespace, name) {
		return true
	}
	return slices.ContainsFunc(e.st.attachedIn(namespace), func(a *attachmentRecord) bool { return a.Name == name })
}

func (e *editor) addVRF(c *iproute.LinkChange) error {
	own := e.own()
	switch {
	case !iproute.IsDeviceName(c.Name):
		return &routing.ParseError{Word: c.Name, Reason: "not a device name"}
	case e.isNamed(e.space, c.Name), slices.ContainsFunc(own.VRFs, func(v vrfRecord) bool { return v.Table == c.Table }):
		return routing.ErrExist
	case c.Table >= routing.TableDefault && c.Table <= routing.TableLocal:
		return &routing.ParseError{Word: "table", Reason: "that table is everybody's"}
	}
	index, err := e.number()
	if err != nil {
		return err
	}
	e.rewire()
	rec := e.record(e.space)
	rec.VRFs = append(slices.Clone(rec.VRFs), vrfRecord{Name: c.Name, Index: index, Table: c.Table})
	if rec.Rules != nil && !slices.ContainsFunc(rec.Rules, func(r routing.Rule) bool { return r.L3mdev }) {
		rec.Rules = append(slices.Clone(rec.Rules), slices.DeleteFunc(firstRules(true), func(r routing.Rule) bool { return !r.L3mdev })...)
	}
	e.records[e.space] = true
	return nil
}

func (e *editor) addLink(c *iproute.LinkChange) error {
	switch {
	case e.isNamed(e.space, c.Name):
		return routing.ErrExist
	case c.PeerNamespace == e.space:
		return &routing.ParseError{Word: c.PeerNamespace, Reason: "the other end must be in another namespace"}
	case e.st.namespace(c.PeerNamespace) == nil:
		return &routing.ParseError{Word: c.PeerNamespace, Reason: "no namespace of that name"}
	case e.isNamed(c.PeerNamespace, c.Peer):
		return routing.ErrExist
	case c.MTU != 0 && c.MTU < config.MinMTU6:
		return &routing.ParseError{Word: "mtu", Reason: fmt.Sprintf("the least is %d", config.MinMTU6)}
	}
	mtu := c.MTU
	if mtu == 0 {
		mtu = config.DefaultMTU
	}
	taken := e.st.numbers()
	near := freeNumber(taken)
	taken[near] = true
	far := freeNumber(taken)
	if near == 0 || far == 0 {
		return errNoPort()
	}
	e.rewire()
	rec := e.record(e.space)
	rec.Links = append(slices.Clone(rec.Links), linkRecord{Name: c.Name, Index: near, PeerNamespace: c.PeerNamespace, Peer: c.Peer, MTU: mtu})
	peer := e.record(c.PeerNamespace)
	peer.Links = append(slices.Clone(peer.Links), linkRecord{Name: c.Peer, Index: far, PeerNamespace: e.space, Peer: c.Name, MTU: mtu})
	e.records[e.space], e.records[c.PeerNamespace] = true, true
	return nil
}

func (e *editor) deleteLink(c *iproute.LinkChange) error {
	own := e.own()
	if l := own.link(c.Name); l != nil && c.Type != iproute.TypeVRF {
		e.rewire()
		e.dropLink(l.PeerNamespace, l.Peer)
		e.dropLink(e.space, c.Name)
		return nil
	}
	if own.vrf(c.Name) == nil || c.Type == iproute.TypeVeth {
		if e.isNetwork(c.Name) {
			return &routing.ParseError{Word: c.Name, Reason: "networks are declared in the file, see apply"}
		}
		return noDevice(c.Name)
	}
	e.rewire()
	rec := e.record(e.space)
	rec.VRFs = slices.DeleteFunc(slices.Clone(rec.VRFs), func(v vrfRecord) bool { return v.Name == c.Name })
	rec.Links = slices.Clone(rec.Links)
	for i := range rec.Links {
		if rec.Links[i].VRF == c.Name {
			rec.Links[i].VRF = ""
		}
	}
	for _, n := range e.st.in(e.space) {
		if n.VRF == c.Name {
			n.VRF, e.networks[n.Name] = "", true
		}
	}
	e.records[e.space] = true
	return nil
}

func (e *editor) dropLink(namespace, name string) {
	rec := e.record(namespace)
	rec.Links = slices.DeleteFunc(slices.Clone(rec.Links), func(l linkRecord) bool { return l.Name == name })
	e.records[namespace] = true
	if namespace != e.space {
		e.spaces[namespace] = true
	}
}

// setLink changes a network, a link or a container's port.
func (e *editor) setLink(c *iproute.LinkChange) error {
	if n := e.st.network(c.Name); n != nil && n.space() == e.space {
		return e.setNetwork(n, c)
	}
	if e.own().link(c.Name) != nil {
		return e.setPointToPoint(c)
	}
	a := e.attachment(c.Name)
	if a == nil {
		return noDevice(c.Name)
	}
	return e.setPort(a, c)
}

// attachment finds one of the namespace by name or identifier.
func (e *editor) attachment(name string) *attachmentRecord {
	a := e.st.find(func(a *attachmentRecord) bool { return a.Name == name || a.ID == name })
	if a == nil || !e.isNetwork(a.Network) {
		return nil
	}
	return a
}

func (e *editor) setPort(a *attachmentRecord, c *iproute.LinkChange) error {
	if c.MTU != 0 || c.Master != "" || c.NoMaster {
		return &routing.ParseError{Word: c.Name, Reason: "mtu and network of a container are set when it is attached"}
	}
	s, err := c.Settings(iproute.OfPort, e.own().names())
	if err != nil {
		return err
	}
	for _, word := range []string{"mirror_in", "mirror_out"} {
		to := s.Mirror(word)
		if to == "" || to == iproute.Default {
			continue
		}
		if other := e.attachment(to); other == nil || other.Network != a.Network || other.ID == a.ID {
			return noDevice(to)
		}
	}
	if _, said := s["table"]; said {
		e.rewire()
	}
	a.Settings = a.Settings.With(s)
	e.attachments[a.ID] = true
	return nil
}

// master is the VRF that a change puts a device into, which is in one already.
func (e *editor) master(c *iproute.LinkChange, was string) (string, error) {
	switch {
	case c.NoMaster:
		return "", nil
	case c.Master == "":
		return was, nil
	case e.own().vrf(c.Master) == nil:
		return "", noDevice(c.Master)
	}
	return c.Master, nil
}

func (e *editor) setNetwork(n *networkRecord, c *iproute.LinkChange) error {
	s, err := c.Settings(iproute.OfDevice, nil)
	if err != nil {
		return err
	}
	next := *n
	if next.VRF, err = e.master(c, n.VRF); err != nil {
		return err
	}
	if c.MTU != 0 && n.Uplink != nil {
		return &routing.ParseError{Word: "mtu", Reason: "that of an uplink is declared in the file, see apply"}
	}
	if c.MTU != 0 {
		next.MTU = c.MTU
		if low := n.leastMTU(); c.MTU < low {
			return &routing.ParseError{Word: "mtu", Reason: fmt.Sprintf("the least is %d", low)}
		}
		if err := refuseStranding(n, &next, e.st.of(n.Name)); err != nil {
			return err
		}
	}
	e.rewire()
	next.Device = n.Device.With(s)
	*n = next
	e.networks[n.Name] = true
	return nil
}

// leastMTU is the least that a network or its containers may have.
func (n *networkRecord) leastMTU() int {
	if n.hasIPv6() {
		return config.MinMTU6
	}
	return config.MinMTU
}

func (e *editor) setPointToPoint(c *iproute.LinkChange) error {
	s, err := c.Settings(iproute.OfDevice, nil)
	if err != nil {
		return err
	}
	vrf, err := e.master(c, e.own().link(c.Name).VRF)
	if err != nil {
		return err
	}
	if c.MTU != 0 && c.MTU < config.MinMTU6 {
		return &routing.ParseError{Word: "mtu", Reason: fmt.Sprintf("the least is %d", config.MinMTU6)}
	}
	e.rewire()
	rec := e.record(e.space)
	rec.Links = slices.Clone(rec.Links)
	l := rec.link(c.Name)
	l.VRF, l.Device = vrf, l.Device.With(s)
	if c.MTU != 0 {
		l.MTU = c.MTU
	}
	e.records[e.space] = true
	return nil
}

// ownerOf is the network or link that has an address; "" if none has.
func (e *editor) ownerOf(a netip.Addr) string {
	for _, n := range e.st.in(e.space) {
		if slices.Contains(n.Gateways, a) {
			return n.Name
		}
	}
	for _, l := range e.own().Links {
		if slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return l.Name
		}
	}
	return ""
}

// maxAddresses bounds those of a link.
const maxAddresses = 64

// address is `addr`: of links only, since a network's are declared.
func (e *editor) address(words []string) error {
	c, err := iproute.ParseAddress(words)
	if err != nil {
		return err
	}
	l := e.own().link(c.Dev)
	switch {
	case e.isNetwork(c.Dev):
		return &routing.ParseError{Word: c.Dev, Reason: "the addresses of a network are declared in the file, see apply"}
	case l == nil:
		return noDevice(c.Dev)
	}
	next := slices.Clone(l.Addresses)
	if c.Op == routing.OpAdd {
		next, err = e.withAddress(next, &c)
	} else {
		next, err = withoutAddress(next, c.Prefix)
	}
	if err != nil {
		return err
	}
	e.rewire()
	rec := e.record(e.space)
	rec.Links = slices.Clone(rec.Links)
	rec.link(c.Dev).Addresses = next
	e.records[e.space] = true
	return nil
}

// withAddress adds an address to those of a link.
func (e *editor) withAddress(all []netip.Prefix, c *iproute.AddressChange) ([]netip.Prefix, error) {
	dev := e.ownerOf(c.Prefix.Addr())
	switch {
	case dev != "" && dev != c.Dev:
		return nil, &routing.ParseError{Word: c.Prefix.String(), Reason: "the address of " + dev}
	case slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Addr() == c.Prefix.Addr() }):
		return nil, routing.ErrExist
	case len(all) >= maxAddresses:
		return nil, errors.New("no buffer space available")
	}
	return append(all, c.Prefix), nil
}

func withoutAddress(all []netip.Prefix, p netip.Prefix) ([]netip.Prefix, error) {
	at := slices.Index(all, p)
	if at < 0 {
		return nil, errors.New("cannot assign requested address")
	}
	return slices.Delete(all, at, at+1), nil
}
