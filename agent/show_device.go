// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice/api"
	"sluice/iproute"
	"sluice/routing"
)

// vrfList is `ip vrf show`.
func (a *Agent) vrfList(q query) ([]api.VRF, error) {
	st, spaces, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	if len(q.words) > 1 {
		return nil, badWords(&routing.ParseError{Word: q.words[1], Reason: "unknown word"})
	}
	out := []api.VRF{}
	for _, space := range spaces {
		rec := st.namespace(space)
		for _, v := range rec.VRFs {
			if len(q.words) == 1 && q.words[0] != v.Name {
				continue
			}
			out = append(out, api.VRF{
				Namespace: space, Name: v.Name, Table: uint32(v.Table), TableName: rec.names().TableName(v.Table),
				Devices: st.slaves(rec, v.Name), Line: fmt.Sprintf("%-16s %d", v.Name, v.Table),
			})
		}
	}
	return out, nil
}

// slaves are the devices in a VRF.
func (s *state) slaves(rec *namespaceRecord, vrf string) []string {
	out := []string{}
	for _, n := range s.in(rec.Name) {
		if n.VRF == vrf {
			out = append(out, n.Name)
		}
	}
	for _, l := range rec.Links {
		if l.VRF == vrf {
			out = append(out, l.Name)
		}
	}
	return out
}

// selection is what follows `ip link show`, `ip neigh show` and the lists of
// bridge(8).
type selection struct {
	name, kind, master string
	vid                uint16
	state              string // of entries: dynamic, static or permanent
	to                 netip.Prefix
	family             int // 4 or 6; 0: both
}

// readSelection reads words of which those that are known may be there. NAME or
// PREFIX among them means that one may stand without a word before it.
func readSelection(words []string, known ...string) (s selection, err error) {
	for len(words) > 0 {
		n, err := s.read(words, known)
		if err != nil {
			return s, err
		}
		words = words[n:]
	}
	return s, nil
}

// choose reads the words of a list, and the state that it is of, with the networks
// that are asked for. What it names has to be there.
func (a *Agent) choose(q query, known ...string) (sel selection, st *state, all []*networkRecord, err error) {
	if sel, err = readSelection(q.words, known...); err != nil {
		return sel, nil, nil, badWords(err)
	}
	if st, all, err = a.look(q); err != nil {
		return sel, nil, nil, err
	}
	return sel, st, all, st.mustKnow(q, sel.name, sel.master)
}

// read takes one or two words and returns how many.
func (s *selection) read(words, known []string) (int, error) {
	word := words[0]
	switch word {
	case "show", "list":
		return 1, nil
	case "-4", "-6":
		s.family = int(word[1] - '0')
		return 1, nil
	}
	if !slices.Contains(known, word) {
		switch {
		case slices.Contains(known, "NAME") && s.name == "":
			s.name = word
			return 1, nil
		case slices.Contains(known, "PREFIX") && !s.to.IsValid():
			return 1, s.set("to", word)
		}
		return 0, &routing.ParseError{Word: word, Reason: "unknown word"}
	}
	switch word {
	case "dynamic", "static", "permanent":
		s.state = word
		return 1, nil
	}
	if len(words) == 1 {
		return 0, &routing.ParseError{Word: word, Reason: "needs an argument"}
	}
	return 2, s.set(word, words[1])
}

func (s *selection) set(word, arg string) error {
	switch word {
	case "dev", "port", "brport":
		s.name = arg
	case "type":
		s.kind = arg
	case "br", "master":
		s.master = arg
	case "nud", "state":
		if arg != "all" && !slices.Contains(neighStates(), arg) {
			return &routing.ParseError{Word: arg, Reason: "no such state"}
		}
		s.state = arg
	case "vlan", "vid":
		n, err := strconv.ParseUint(arg, 10, 12)
		if err != nil {
			return &routing.ParseError{Word: arg, Reason: "not a VLAN"}
		}
		s.vid = uint16(n)
	case "to":
		p, err := netip.ParsePrefix(arg)
		if err != nil {
			a, err := netip.ParseAddr(arg)
			if err != nil {
				return &routing.ParseError{Word: arg, Reason: "not a prefix"}
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		s.to = p.Masked()
	}
	return nil
}

// deviceList is `ip link show`: networks, links, VRFs and ports by number.
func (a *Agent) deviceList(q query) ([]api.Device, error) {
	sel, err := readSelection(q.words, "dev", "type", "master", "NAME")
	if err != nil {
		return nil, badWords(err)
	}
	st, spaces, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	out := []api.Device{}
	for _, space := range spaces {
		out = append(out, st.publicDevices(space)...)
	}
	out = slices.DeleteFunc(out, func(d api.Device) bool {
		return sel.name != "" && d.IfName != sel.name || sel.kind != "" && d.Kind != sel.kind || sel.master != "" && d.Master != sel.master
	})
	if sel.name != "" && len(out) == 0 {
		return nil, refuse(api.CodeNotFound, "words", "Device \"%s\" does not exist.", sel.name)
	}
	slices.SortFunc(out, func(x, y api.Device) int { return cmp.Compare(x.IfIndex, y.IfIndex) })
	return out, nil
}

func (s *state) publicDevices(space string) []api.Device {
	rec := s.namespace(space)
	var out []api.Device
	for _, n := range s.in(space) {
		d := routed(space, n.Device, "strict")
		d.IfIndex, d.IfName, d.Kind, d.MTU, d.MAC, d.Master = n.Port, n.Name, "network", n.MTU, n.MAC.String(), n.VRF
		if n.Uplink != nil {
			d.Kind = "uplink"
		}
		if n.bySocket() {
			d.MAC, d.RPFilter = "", orWord(n.Device["rp_filter"], "off")
		}
		d.VLAN = publicVLAN(n.VLAN)
		for i, g := range n.Gateways {
			d.Addresses = append(d.Addresses, netip.PrefixFrom(g, n.Subnets[i].Bits()))
		}
		out = append(out, d)
		for _, at := range s.of(n.Name) {
			set := at.publicSettings(n, rec.names())
			out = append(out, api.Device{
				Namespace: space, IfIndex: at.Port, IfName: at.Name, Kind: "port", MTU: at.MTU, MAC: at.MAC.String(),
				Addresses: append([]netip.Prefix{}, at.Addresses...), Master: n.Name, Table: set.Table, Port: set,
			})
		}
	}
	for _, l := range rec.Links {
		d := routed(space, l.Device, "off")
		d.IfIndex, d.IfName, d.Kind, d.MTU, d.Master = l.Index, l.Name, "link", l.MTU, l.VRF
		d.Peer, d.PeerNamespace, d.Addresses = l.Peer, l.PeerNamespace, append(d.Addresses, l.Addresses...)
		out = append(out, d)
	}
	for _, v := range rec.VRFs {
		out = append(out, api.Device{
			Namespace: space, IfIndex: v.Index, IfName: v.Name, Kind: "vrf", Table: rec.names().TableName(v.Table), Addresses: []netip.Prefix{},
		})
	}
	for i := range out {
		out[i].Line = deviceLine(&out[i])
	}
	return out
}

// routed is a device with the settings of routing.
func routed(space string, s iproute.Settings, reverse string) api.Device {
	return api.Device{
		Namespace: space, Addresses: []netip.Prefix{}, Forwarding: s["forwarding"] != "off", Redirects: s["redirects"] != "off",
		RPFilter: orWord(s["rp_filter"], reverse), ClampMSS: orWord(s["clamp_mss"], "off"),
	}
}

// deviceLine is the first line of `ip link show`.
func deviceLine(d *api.Device) string {
	flags := "BROADCAST,MULTICAST,UP,LOWER_UP"
	name := d.IfName
	switch d.Kind {
	case "link":
		flags, name = "POINTOPOINT,NOARP,UP,LOWER_UP", name+"@"+d.Peer
	case "vrf":
		flags = "NOARP,MASTER,UP,LOWER_UP"
	}
	line := fmt.Sprintf("%d: %s: <%s>", d.IfIndex, name, flags)
	if d.MTU != 0 {
		line += fmt.Sprintf(" mtu %d", d.MTU)
	}
	if d.Master != "" {
		line += " master " + d.Master
	}
	return line + " state UP"
}

// vlanList is `bridge vlan show`: the ports that filter VLANs.
func (a *Agent) vlanList(q query) ([]api.VLANPort, error) {
	sel, st, all, err := a.choose(q, "dev", "vid")
	if err != nil {
		return nil, err
	}
	out := []api.VLANPort{}
	add := func(n *networkRecord, name string, v *iproute.VLAN) {
		if !v.Aware() || sel.name != "" && sel.name != name {
			return
		}
		p := api.VLANPort{Namespace: n.space(), Network: n.Name, IfName: name, VLANs: vlanEntries(v, sel.vid)}
		if len(p.VLANs) > 0 {
			p.Line = vlanLines(name, p.VLANs)
			out = append(out, p)
		}
	}
	for _, n := range all {
		add(n, n.Name, n.VLAN)
		for _, at := range st.of(n.Name) {
			add(n, at.Name, at.vlan(n))
		}
	}
	return out, nil
}

// vlanEntries are the VLANs of a port, those with the same flags together; of one VLAN
// only, if it is not 0.
func vlanEntries(v *iproute.VLAN, only uint16) []api.VLANEntry {
	out := []api.VLANEntry{}
	for vid := uint16(1); vid <= 4094; vid++ {
		flags, member := v.Flags(vid)
		if !member || only != 0 && vid != only {
			continue
		}
		if n := len(out); n > 0 && slices.Equal(out[n-1].Flags, flags) && max(out[n-1].VLAN, out[n-1].VLANEnd)+1 == vid {
			out[n-1].VLANEnd = vid
			continue
		}
		out = append(out, api.VLANEntry{VLAN: vid, Flags: flags})
	}
	return out
}

// vlanLines are the lines of bridge-vlan(8): the name in the first column only.
func vlanLines(name string, all []api.VLANEntry) string {
	var b strings.Builder
	for i, e := range all {
		if i > 0 {
			b.WriteByte('\n')
			name = ""
		}
		vids := strconv.Itoa(int(e.VLAN))
		if e.VLANEnd != 0 {
			vids += "-" + strconv.Itoa(int(e.VLANEnd))
		}
		fmt.Fprintf(&b, "%-17s %s", name, strings.Join(append([]string{vids}, e.Flags...), " "))
	}
	return b.String()
}
