// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/api"
	"sluice/autoconf"
	"sluice/config"
	"sluice/iproute"
	"sluice/nat"
	"sluice/natspec"
	"sluice/routing"
	"sluice/uplink"
	"sluice/veth"
)

// Theory of operation of uplinks of type nic, beside that of uplink.go.
//
// The port's socket is on an interface of the host itself, among the host ends: moved
// there, or a macvlan on it. How a moved one goes back is in its alias (veth.NIC), so
// that it does whatever is left of the state. The device's MAC is the interface's, which
// is seen when it is taken: it then needs no promiscuous mode.

// nicRecord is what an uplink of type nic has beside.
type nicRecord struct {
	Share    string         `json:"share,omitempty"`
	Static   []netip.Prefix `json:"static,omitempty"`
	Gateways []netip.Addr   `json:"gateways,omitempty"`
	DHCP     bool           `json:"dhcp,omitempty"`
	SLAAC    bool           `json:"slaac,omitempty"`
	DHCP6    bool           `json:"dhcp6,omitempty"`
	DNS      []netip.Addr   `json:"dns,omitempty"`
	// MTU is what was asked for; 0: that of the interface.
	MTU int `json:"mtu,omitempty"`
	// Learned is what its link has told, in a boot (random(4), boot_id); nil: nothing yet.
	Learned *autoconf.Learned `json:"learned,omitempty"`
	Boot    string            `json:"boot,omitempty"`
	// Clash is why an address that was learned is not used.
	Clash string `json:"clash,omitempty"`
	// Again is another number after each interruption of the link.
	Again uint32 `json:"again,omitempty"`
	// Home is where the interface was taken from.
	Home nsIdentity `json:"home,omitzero"`
}

// The forwarding table of a nic: behind its port is a link with many stations.
const nicFDB = config.DefaultFDBMax

// nicOf is what the uplink of an attachment has if it is of type nic; nil otherwise.
func (s *state) nicOf(rec *attachmentRecord) *nicRecord {
	if n := s.network(rec.Network); n != nil && n.Uplink != nil {
		return n.Uplink.NIC
	}
	return nil
}

// declareNIC makes a network that of a nic.
func (n *networkRecord) declareNIC(c *config.Uplink) {
	n.Uplink.Type = config.UplinkNIC
	n.Uplink.NIC = &nicRecord{
		Share: c.NIC.Share, Static: c.Addresses, Gateways: c.NIC.Gateways,
		DHCP: c.NIC.DHCP, SLAAC: c.NIC.SLAAC, DHCP6: c.NIC.DHCP6, DNS: c.NIC.DNS, MTU: c.NIC.MTU,
	}
	n.Settings = iproute.Settings{"guard": "off"} // it is no container
	n.FDBMax, n.FDBMaxPerPort = nicFDB, nicFDB
}

// keepLearned takes over what the same interface has learned, and its MTU.
func (n *networkRecord) keepLearned(old *networkRecord) {
	if old == nil || n.Uplink.NIC == nil || !n.Uplink.NIC.sameNIC(old.Uplink.NIC) {
		return
	}
	nic, was := n.Uplink.NIC, old.Uplink.NIC
	n.MTU, nic.Home, nic.Again = old.MTU, was.Home, was.Again
	nic.Learned, nic.Boot = was.Learned, was.Boot
	nic.trim()
}

// sameNIC reports whether what was taken for one is good for the other.
func (r *nicRecord) sameNIC(o *nicRecord) bool {
	return r != nil && o != nil && r.Share == o.Share && r.MTU == o.MTU
}

// takeNIC makes an interface of the host the host end of an uplink, and notes its MAC
// and MTU.
func (a *Agent) takeNIC(rec *attachmentRecord, n *networkRecord) error {
	nic := n.Uplink.NIC
	end := veth.NIC{
		HomeNS: a.ownNS, HostNS: a.hostNS, Name: rec.IfName, HostName: rec.hostIfName(), ID: rec.ID,
		HostIndex: hostIndexBase + int(rec.Port), Share: nic.Share, MTU: nic.MTU,
	}
	if nic.Share != "" && nic.Share != "passthru" {
		end.MAC = n.MAC
	}
	home, err := identify(a.ownNS)
	if err != nil {
		return err
	}
	mac, mtu, err := end.Take()
	if err != nil {
		return err
	}
	nic.Again++
	nic.Home, n.MAC, n.MTU, rec.MTU = home, mac, min(mtu, veth.MaxMTU), min(mtu, veth.MaxMTU)
	return a.store.update(func(t *txn) error {
		if err := t.putNetwork(n); err != nil {
			return err
		}
		return t.putAttachment(rec)
	})
}

// giveBackHere gives an interface back to this process's own namespace, if it is from
// there.
func (a *Agent) giveBackHere(ctx context.Context, rec *attachmentRecord, nic *nicRecord) error {
	own, err := identify(a.ownNS)
	if err != nil {
		return err
	}
	if own != nic.Home {
		return fmt.Errorf("uplink %s: interface %s is from another network namespace than this: stop sluiced there", rec.Network, rec.IfName)
	}
	return a.lower(ctx, rec)
}

// nicOnHost refuses an interface that is not there, or that the host still uses.
func (d *declaration) nicOnHost(c *config.Uplink) error {
	for _, a := range d.was.uplinks() { // ours already, or vanished, or another uplink's, which gives it back first
		if a.IfName == c.IfName && d.was.nicOf(a) != nil {
			return nil
		}
	}
	s := d.t.host
	if !slices.Contains(s.Links, c.IfName) {
		return fmt.Errorf("%w: %s", veth.ErrNoNIC, c.IfName)
	}
	if c.NIC.Share != "" {
		return nil
	}
	for _, h := range s.Addrs {
		if h.IfName == c.IfName && !h.Prefix.Addr().IsLinkLocalUnicast() {
			return fmt.Errorf("%w: its address %s is on %s, which would be Sluice's; remove it (ip addr flush dev %s), or share the interface",
				uplink.ErrConflict, h.Prefix, c.IfName, c.IfName)
		}
	}
	return nil
}

// nicRoutes are the default routes by a nic.
func (n *networkRecord) nicRoutes(rec *namespaceRecord) (out []routing.Change) {
	if !n.Uplink.DefaultRoute {
		return nil
	}
	table, _ := rec.vrfTable(n.VRF)
	for _, g := range n.Uplink.NIC.Gateways {
		out = append(out, routing.Change{Route: &routing.Route{
			Prefix: netip.PrefixFrom(unspecified(g), 0), Table: table, Proto: routing.ProtoStatic,
			NextHops: []routing.NextHop{{Via: g, Dev: n.Name}},
		}})
	}
	return out
}

// nicLine is a nic in the words of `sluice uplink`.
func nicLine(n *networkRecord, a *attachmentRecord) string {
	nic := n.Uplink.NIC
	w := []string{n.Name, "type nic dev", a.IfName}
	if nic.Share != "" {
		w = append(w, "share", nic.Share)
	}
	if nic.MTU != 0 {
		w = append(w, "mtu", fmt.Sprint(nic.MTU))
	}
	for _, p := range nic.Static {
		w = append(w, "addr", p.String())
	}
	for _, g := range nic.Gateways {
		w = append(w, "gateway", g.String())
	}
	for _, s := range nic.DNS {
		w = append(w, "dns", s.String())
	}
	if n.VRF != "" {
		w = append(w, "vrf", n.VRF)
	}
	for _, f := range []struct {
		word string
		on   bool
	}{
		{"dhcp", nic.DHCP},
		{"slaac", nic.SLAAC},
		{"dhcp6", nic.DHCP6},
		{"default_route", n.Uplink.DefaultRoute},
		{"masquerade", n.Uplink.Masquerade},
	} {
		w = append(w, f.word, onOff(f.on))
	}
	return strings.Join(append(w, n.Device.Words()...), " ")
}

// publicNIC is what the API shows of a nic.
func (n *networkRecord) publicNIC() *api.UplinkNIC {
	nic := n.Uplink.NIC
	gateways := append([]netip.Addr{}, nic.Gateways...)
	for _, r := range nic.Learned.AllRoutes() {
		if r.Dst.Bits() == 0 && !slices.Contains(gateways, r.Via) {
			gateways = append(gateways, r.Via)
		}
	}
	return &api.UplinkNIC{
		Share: nic.Share, Gateways: gateways, DNS: append([]netip.Addr{}, nic.nameservers()...),
		DHCP: nic.DHCP, SLAAC: nic.SLAAC, DHCP6: nic.DHCP6,
	}
}

// nicText is a nic in the manner of `ip -d address`.
func nicText(up *api.Uplink) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %s@%s: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu %d", up.IfIndex, up.Name, up.IfName, up.MTU)
	if up.VRF != "" {
		fmt.Fprintf(&b, " master %s", up.VRF)
	}
	fmt.Fprintf(&b, " state %s\n    link/ether %s\n", strings.ToUpper(string(up.State)), up.MAC)
	for _, p := range up.Addresses {
		family := "inet"
		if p.Addr().Is6() {
			family = "inet6"
		}
		fmt.Fprintf(&b, "    %s %s\n", family, p)
	}
	b.WriteString("    type nic ")
	if up.NIC.Share != "" {
		fmt.Fprintf(&b, "share %s ", up.NIC.Share)
	}
	fmt.Fprintf(&b, "dhcp %s slaac %s dhcp6 %s default_route %s masquerade %s",
		onOff(up.NIC.DHCP), onOff(up.NIC.SLAAC), onOff(up.NIC.DHCP6), onOff(up.DefaultRoute), onOff(up.Masquerade))
	for _, g := range up.NIC.Gateways {
		fmt.Fprintf(&b, "\n    gateway %s", g)
	}
	for _, s := range up.NIC.DNS {
		fmt.Fprintf(&b, "\n    dns %s", s)
	}
	if up.Fault != "" {
		fmt.Fprintf(&b, "\n    fault %q", up.Fault)
	}
	return b.String()
}

// masquerades are the rules of the nics that hide what leaves by them.
func (s *state) masquerades(namespace string) (out []nat.Rule) {
	for _, n := range s.in(namespace) {
		if n.Uplink != nil && n.Uplink.NIC != nil && n.Uplink.Masquerade {
			out = append(out, natspec.Leaving(n.Name, n.Port))
		}
	}
	return out
}
