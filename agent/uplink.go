// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/api"
	"sluice/config"
	"sluice/ipam"
	"sluice/iproute"
	"sluice/packet"
	"sluice/routing"
	"sluice/uplink"
)

// Theory of operation.
//
// An uplink is a network with one port, behind which is the host: its record is a
// networkRecord with uplinkRecord in it, and an attachmentRecord that says uplink, of a
// container whose namespace is the daemon's own. What is said of networks and
// attachments therefore holds, but for this:
//
//   - They are declared, and nothing else makes or removes them. What is being made
//     when the agent is killed is completed by the next start, not undone; what is being
//     removed is removed.
//   - An interface that vanishes is made again (mend.go).
//   - The host is dressed (package uplink): routes and such, which are compared with what
//     they should be now and then.
//
// A change of what is fixed when the pair is made gives it another attachment, of the
// same network: the old one is deleting while the new one is creating.

// uplinkRecord is what of an uplink a network does not have. Its port's attachment has
// the rest.
type uplinkRecord struct {
	// Type is config.UplinkSocket or UplinkNIC; empty: config.UplinkHost.
	Type         string `json:"type,omitempty"`
	DefaultRoute bool   `json:"default_route"`
	HostRoutes   bool   `json:"host_routes"`
	Masquerade   bool   `json:"masquerade"`
	Forward      bool   `json:"forward"`
	// NIC makes it one of type nic, see uplink_nic.go.
	NIC *nicRecord `json:"nic,omitempty"`
}

// The forwarding table of an uplink, behind whose one port is one station, and what of
// it is checked: a host forwards, so it may send from any address.
const (
	uplinkFDB   = config.MinFDBMax
	uplinkGuard = "mac,arp,nd,ra,dhcp,dhcp6,query"
	// Whatever link-local address its interface has, it may answer for it.
	uplinkAllow = "fe80::/10"
)

// uplinkNet is the network of an uplink, without what the agent decides.
func uplinkNet(c *config.Uplink, ends []netip.Prefix) networkRecord {
	n := networkRecord{
		Name: c.Name, MTU: c.MTU, AgeingSeconds: int(config.DefaultAgeing / time.Second), FDBMax: uplinkFDB, FDBMaxPerPort: uplinkFDB,
		Namespace: c.Namespace, VRF: c.VRF, Device: c.Device, Settings: iproute.Settings{"guard": uplinkGuard, "guard_allow": uplinkAllow},
		Uplink: &uplinkRecord{DefaultRoute: c.DefaultRoute, HostRoutes: c.HostRoutes, Masquerade: c.Masquerade, Forward: c.Forward},
	}
	switch c.Type {
	case config.UplinkNIC:
		n.declareNIC(c)
	case config.UplinkSocket:
		n.Uplink.Type = c.Type
		n.AgeingSeconds, n.FDBMax, n.FDBMaxPerPort, n.Settings = 0, 0, 0, nil // there is no bridge
	}
	if n.bySocket() {
		n.Queue.declare(&c.Queueing)
	} else {
		n.declareQueueing(&c.Queueing)
	}
	for _, p := range ends {
		n.Subnets, n.Gateways = append(n.Subnets, p.Masked()), append(n.Gateways, p.Addr())
	}
	if n.Namespace == n.Name {
		n.Namespace = ""
	}
	return n
}

// ends are the addresses of a network's gateway, with their length.
func (n *networkRecord) ends() (out []netip.Prefix) {
	for i, g := range n.Gateways {
		out = append(out, netip.PrefixFrom(g, n.Subnets[i].Bits()))
	}
	return out
}

// isUplink reports whether a name is that of an uplink.
func (s *state) isUplink(name string) bool {
	n := s.network(name)
	return n != nil && n.Uplink != nil
}

// uplinks are the attachments of uplinks, in any state.
func (s *state) uplinks() []*attachmentRecord {
	return s.where(func(a *attachmentRecord) bool { return a.Uplink })
}

// uplinkPort is the attachment of an uplink; nil if there is none.
func (s *state) uplinkPort(name string) *attachmentRecord {
	return s.find(func(a *attachmentRecord) bool {
		return a.Uplink && a.Network == name && a.State != api.StateDeleting
	})
}

// containers counts the attachments that are no uplinks.
func (s *state) containers() int { return len(s.attachments) - len(s.uplinks()) }

// behind are the subnets that the host reaches by an uplink.
func (s *state) behind(n *networkRecord) (out []netip.Prefix) {
	for _, o := range s.in(n.space()) {
		if o.Uplink == nil && o.VRF == n.VRF {
			out = append(out, o.Subnets...)
		}
	}
	return out
}

// hostConfig is what the host is to have for an uplink.
func (s *state) hostConfig(rec *attachmentRecord) *uplink.Config {
	n := s.network(rec.Network)
	if n == nil || n.Uplink == nil || n.Uplink.NIC != nil {
		return nil
	}
	return &uplink.Config{
		IfName: rec.IfName, Comment: fmt.Sprintf("made by sluiced: uplink %s of namespace %s", n.Name, n.space()),
		Addresses: rec.Addresses, Ends: n.Gateways, MAC: n.MAC, Subnets: s.behind(n),
		Routes: n.Uplink.HostRoutes, Forward: n.Uplink.Forward, Masquerade: n.Uplink.Masquerade,
		Published: s.published(n),
	}
}

// uplinks makes the records of those that are declared.
func (d *declaration) uplinks() error {
	d.is.attachments = slices.Clone(d.was.attachments)
	for i := range d.was.networks {
		old := &d.was.networks[i]
		if old.Uplink == nil || !d.mine(old.Origin) || slices.ContainsFunc(d.c.Uplinks, func(c config.Uplink) bool { return c.Name == old.Name }) {
			continue
		}
		if d.is.network(old.Name) == nil { // else a network has its name now
			if err := d.t.dropNetwork(old.Name); err != nil {
				return err
			}
		}
		if err := d.unplug(d.is.uplinkPort(old.Name)); err != nil {
			return err
		}
	}
	for i := range d.c.Uplinks {
		if err := d.uplink(fmt.Sprintf("uplinks[%d]", i), &d.c.Uplinks[i]); err != nil {
			return err
		}
	}
	slices.SortFunc(d.is.networks, func(a, b networkRecord) int { return cmp.Compare(a.Name, b.Name) })
	d.compareUplinks()
	return nil
}

// unplug marks an attachment to be removed.
func (d *declaration) unplug(rec *attachmentRecord) error {
	if rec == nil {
		return nil
	}
	rec.State, rec.Fault = api.StateDeleting, ""
	return d.t.putAttachment(rec)
}

// uplink keeps what was decided of one that was there, and its attachment, if nothing
// changes that was fixed when its pair was made.
func (d *declaration) uplink(field string, c *config.Uplink) (err error) {
	old := d.was.network(c.Name)
	if old != nil && old.Uplink == nil {
		old = nil // a network of that name, which the file has no more
	}
	var ends []netip.Prefix
	if c.Type != config.UplinkSocket {
		if ends, err = d.ends(field, c, old); err != nil {
			return err
		}
	}
	n := uplinkNet(c, ends)
	n.Origin = d.by.config
	n.keepLearned(old)
	n.keepQueue(old)
	if n.Uplink.NIC != nil {
		d.is.readdress(&n)
	}
	if err := d.decideUplink(&n, old); err != nil {
		return err
	}
	d.is.networks = append(d.is.networks, n)
	if err := d.t.putNetwork(&n); err != nil {
		return err
	}
	port := d.is.uplinkPort(c.Name)
	if n.bySocket() {
		return d.unplug(port)
	}
	if old != nil && port != nil && port.serves(&n, old, c.IfName) {
		return nil
	}
	if err := d.unplug(port); err != nil {
		return err
	}
	return d.plug(c, &n)
}

// serves reports whether the pair that an uplink's port has is good for its network as
// it is now.
func (a *attachmentRecord) serves(n, old *networkRecord, ifname string) bool {
	if a.IfName != ifname || old.space() != n.space() {
		return false
	}
	if n.Uplink.NIC != nil || old.Uplink.NIC != nil {
		return n.Uplink.NIC.sameNIC(old.Uplink.NIC)
	}
	return a.MTU == n.MTU && slices.Equal(old.ends(), n.ends())
}

// decideUplink decides the port and the MAC of Sluice's end, which stay for good.
func (d *declaration) decideUplink(n, old *networkRecord) (err error) {
	if old != nil {
		n.Port, n.MAC = old.Port, old.MAC
		return nil
	}
	if n.Port, err = d.number(); err != nil {
		return err
	}
	n.MAC, err = ipam.MAC(n.Name, newID(), func([6]byte) bool { return false })
	return err
}

// plug makes the record of the host's attachment. Its name is none that a request can
// give to another one.
func (d *declaration) plug(c *config.Uplink, n *networkRecord) (err error) {
	rec := attachmentRecord{
		ID: newID(), Name: "host:" + c.Name, Network: c.Name, IfName: c.IfName, MTU: c.MTU,
		Offload: true, State: api.StateCreating, Uplink: true,
	}
	if rec.Port, err = d.number(); err != nil {
		return err
	}
	if old := d.was.uplinkPort(c.Name); old != nil { // what was set of it lasts
		rec.Egress, rec.Ingress, rec.Shares, rec.rulesRecord = old.Egress, old.Ingress, old.Shares, old.rulesRecord
		if err = d.t.moveArchive(old.rulesKey(), rec.rulesKey()); err != nil {
			return err
		}
	}
	if c.NIC != nil { // behind it is whoever is on the link
		d.is.attachments = append(d.is.attachments, rec)
		return d.t.putAttachment(&rec)
	}
	if rec.MAC, err = ipam.MAC(c.Name, rec.ID, func(m [6]byte) bool { return packet.MAC(m) == n.MAC }); err != nil {
		return err
	}
	for _, p := range n.ends() {
		rec.Addresses = append(rec.Addresses, netip.PrefixFrom(config.Other(p), p.Bits()))
	}
	d.is.attachments = append(d.is.attachments, rec)
	return d.t.putAttachment(&rec)
}

// ends are the addresses of Sluice's end: those that are said, else those that it has,
// else some that nobody has.
func (d *declaration) ends(field string, c *config.Uplink, old *networkRecord) (out []netip.Prefix, err error) {
	if len(c.Addresses) > 0 || c.NIC != nil {
		return c.Addresses, nil
	}
	for _, v6 := range d.families(c.Namespace) {
		p := netip.Prefix{}
		if old != nil {
			for _, q := range old.ends() {
				if q.Addr().Is6() == v6 && d.isPicked(q) {
					p = q
				}
			}
		}
		if !p.IsValid() {
			p = d.pick(v6)
		}
		if !p.IsValid() {
			return nil, refuse(api.CodeExhausted, field+".addresses", "no prefix is free; give addresses")
		}
		out = append(out, p)
	}
	return out, nil
}

// families says for each family that the networks of a namespace have, or that it gets
// to by NAT64, IPv4 first, whether it is IPv6; both, if it has neither.
func (d *declaration) families(namespace string) (out []bool) {
	var has4, has6 bool
	for i := range d.c.Networks {
		for _, s := range d.c.Networks[i].Subnets {
			if d.c.Networks[i].Namespace == namespace {
				has4, has6 = has4 || s.Addr().Is4(), has6 || s.Addr().Is6()
			}
		}
	}
	for i := range d.c.Namespaces { // NAT64 needs IPv4 outside
		n := &d.c.Namespaces[i]
		has4 = has4 || n.Name == namespace && n.Connections.NAT64 != nil
	}
	if has4 || !has6 {
		out = append(out, false)
	}
	if has6 || !has4 {
		out = append(out, true)
	}
	return out
}

// picks bounds the prefixes that are tried.
const picks = 1 << 15

// pool4 is where IPv4 prefixes are picked: a part of the shared address space that is
// for links like these (RFC 6598). Link-local addresses would not do, since no router
// forwards to them or from them (RFC 3927 §2.7).
func pool4() netip.Prefix { return netip.MustParsePrefix("100.127.0.0/16") }

// pool6 is a unique local range of the node's own (RFC 4193 §3.2.2).
func (s *state) pool6() netip.Prefix {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, s.seed), "uplinks"...))
	a := [16]byte{0: 0xfd}
	copy(a[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

func (d *declaration) isPicked(p netip.Prefix) bool {
	return pool4().Contains(p.Addr()) && p.Bits() == 31 || d.was.pool6().Contains(p.Addr()) && p.Bits() == 127
}

// pick returns the first prefix for two that neither the file nor the host has.
func (d *declaration) pick(v6 bool) netip.Prefix {
	for i := range picks {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 127, byte(i >> 7), byte(2 * i)}), 31)
		if v6 { // not the first address of a subnet, which means any router in it (RFC 4291 §2.6.1)
			a := d.was.pool6().Addr().As16()
			binary.BigEndian.PutUint16(a[6:], uint16(i))
			a[15] = 2
			p = netip.PrefixFrom(netip.AddrFrom16(a), 127)
		}
		if d.vacant(p) {
			return p
		}
	}
	return netip.Prefix{}
}

func (d *declaration) vacant(p netip.Prefix) bool {
	meets := func(q netip.Prefix) bool { return q.Overlaps(p) }
	for i := range d.is.networks {
		if slices.ContainsFunc(d.is.networks[i].Subnets, meets) {
			return false
		}
	}
	for i := range d.c.Uplinks {
		if slices.ContainsFunc(d.c.Uplinks[i].Addresses, meets) {
			return false
		}
	}
	for i := range d.c.Namespaces {
		for _, l := range d.c.Namespaces[i].Links {
			if slices.ContainsFunc(l.Addresses, meets) {
				return false
			}
		}
	}
	// What was there before may be anybody's until it is gone.
	for _, n := range d.was.networks {
		if n.Uplink != nil && slices.ContainsFunc(n.Subnets, meets) {
			return false
		}
	}
	return d.t.host == nil || d.t.host.Free(p)
}

// onHost refuses uplinks that would collide with what the host has.
func (d *declaration) onHost() error {
	if d.t.host == nil {
		return nil
	}
	var ours []string
	for _, a := range d.was.uplinks() {
		if d.was.hostConfig(a) != nil {
			ours = append(ours, a.IfName)
		}
	}
	survey := d.t.host.Without(ours)
	for i := range d.c.Uplinks {
		field := fmt.Sprintf("uplinks[%d]", i)
		if d.c.Uplinks[i].Type == config.UplinkSocket {
			continue
		}
		c := d.is.hostConfig(d.is.uplinkPort(d.c.Uplinks[i].Name))
		if c == nil {
			if err := d.nicOnHost(&d.c.Uplinks[i]); err != nil {
				return d.fault(field+".ifname", err)
			}
			continue
		}
		if err := survey.Conflict(c); err != nil {
			return d.fault(field, err)
		}
	}
	return nil
}

// defaults adds the default routes of a namespace that lead to the host.
func (d *declaration) defaults(rec *namespaceRecord, set *routing.Set) (*routing.Set, error) {
	for i := range d.c.Uplinks {
		c := &d.c.Uplinks[i]
		if c.Namespace != rec.Name || !c.DefaultRoute && c.NIC == nil {
			continue
		}
		next, err := set.Apply(d.uplinkRoutes(c, rec))
		if at, ok := errors.AsType[*routing.ChangeError](err); ok {
			err = at.Err
		}
		if err != nil {
			return nil, d.fault(fmt.Sprintf("uplinks[%d].defaultRoute", i), err)
		}
		set = next
		if n := d.is.network(c.Name); n.Uplink.NIC != nil {
			set = n.withLearned(set, rec)
		}
	}
	return set, nil
}

// uplinkRoutes are the routes that an uplink makes.
func (d *declaration) uplinkRoutes(c *config.Uplink, rec *namespaceRecord) []routing.Change {
	switch c.Type {
	case config.UplinkSocket:
		return d.socketRoutes(c, rec)
	case config.UplinkNIC:
		return d.is.network(c.Name).nicRoutes(rec)
	}
	return defaultRoutes(d.is.uplinkPort(c.Name), rec, c.VRF)
}

// defaultRoutes lead by an uplink's port, in the table of its VRF.
func defaultRoutes(port *attachmentRecord, rec *namespaceRecord, vrf string) (out []routing.Change) {
	table, _ := rec.vrfTable(vrf)
	for _, a := range port.addrs() {
		out = append(out, routing.Change{Route: &routing.Route{
			Prefix: netip.PrefixFrom(unspecified(a), 0), Table: table, Proto: routing.ProtoStatic,
			NextHops: []routing.NextHop{{Via: a, Dev: port.Network}},
		}})
	}
	return out
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// compareUplinks lists what differs, in lines.
func (d *declaration) compareUplinks() {
	before, after := d.was.uplinkLines(), d.is.uplinkLines()
	for _, space := range append(d.was.spaces(), d.is.spaces()...) {
		d.compare("uplink", space, before[space], after[space])
		delete(before, space)
		delete(after, space)
	}
}

// uplinkLines are the uplinks of each namespace as text.
func (s *state) uplinkLines() map[string][]string {
	out := make(map[string][]string)
	for i := range s.networks {
		n := &s.networks[i]
		if n.bySocket() {
			out[n.space()] = append(out[n.space()], socketLine(n)+qdiscText(n.Queue.Lines))
		} else if a := s.uplinkPort(n.Name); n.Uplink != nil && a != nil {
			out[n.space()] = append(out[n.space()], uplinkLine(n, a)+qdiscText(n.Qdisc))
		}
	}
	return out
}

// uplinkLine is an uplink in the words of `sluice uplink`.
func uplinkLine(n *networkRecord, a *attachmentRecord) string {
	if n.Uplink.NIC != nil {
		return nicLine(n, a)
	}
	w := []string{n.Name, "type host dev", a.IfName, "mtu", fmt.Sprint(n.MTU)}
	for i, p := range n.ends() {
		w = append(w, "addr", p.String(), "peer", a.Addresses[i].Addr().String())
	}
	if n.VRF != "" {
		w = append(w, "vrf", n.VRF)
	}
	for _, f := range []struct {
		word string
		on   bool
	}{
		{"default_route", n.Uplink.DefaultRoute},
		{"host_routes", n.Uplink.HostRoutes},
		{"masquerade", n.Uplink.Masquerade},
		{"forward", n.Uplink.Forward},
	} {
		w = append(w, f.word, onOff(f.on))
	}
	return strings.Join(append(w, n.Device.Words()...), " ")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
