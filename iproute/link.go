// SPDX-License-Identifier: Apache-2.0

package iproute

import (
	"net/netip"

	"sluice/routing"
)

// LinkType is what a new device is.
type LinkType string

// The types that can be made, in ip-link(8)'s words.
const (
	TypeVRF  LinkType = "vrf"
	TypeVeth LinkType = "veth" // a link between two namespaces
)

// LinkOp is what is done to a device.
type LinkOp uint8

// The operations.
const (
	LinkAdd LinkOp = iota
	LinkDelete
	LinkSet
)

// LinkChange is a line of ip-link(8), of `bridge link set`, or of `ip vrf` with add
// and del.
type LinkChange struct {
	Op   LinkOp
	Name string
	// Type, Table, Peer and PeerNamespace are what LinkAdd makes. Type is also there
	// in LinkDelete if it was said.
	Type                LinkType
	Table               routing.TableID
	Peer, PeerNamespace string
	// MTU is 0 if it isn't said.
	MTU int
	// Master is the VRF of a device; NoMaster takes it out of one.
	Master   string
	NoMaster bool
	// Said are the other words of LinkSet, not yet checked, in pairs: only who knows
	// what the device is can tell which words it has.
	Said [][2]string
}

// maxMTU is the largest IP packet without jumbograms.
const maxMTU = 65535

// ParseLink reads what follows `ip link` or `bridge link`.
func ParseLink(list []string, names *routing.Names) (LinkChange, error) {
	w := newWords(list)
	verb, err := w.command("add", "delete", "set")
	if err != nil {
		return LinkChange{}, err
	}
	switch verb {
	case "add":
		return w.addLink(names)
	case "delete":
		return w.deleteLink()
	}
	return w.setLink()
}

// ParseVRF reads what follows `vrf`: add NAME table N, or del NAME.
func ParseVRF(list []string, names *routing.Names) (LinkChange, error) {
	w := newWords(list)
	verb, err := w.command("add", "delete")
	if err != nil {
		return LinkChange{}, err
	}
	c := LinkChange{Type: TypeVRF, Op: LinkDelete}
	if err := w.device(&c.Name); err != nil || verb == "delete" {
		return c, w.finish(err)
	}
	c.Op = LinkAdd
	return c, w.vrf(&c, names)
}

// finish refuses what is left of a command.
func (w *words) finish(err error) error {
	if err == nil && w.more() {
		w.take()
		return w.wrong("unknown word")
	}
	return err
}

func (w *words) vrf(c *LinkChange, names *routing.Names) error {
	if w.take() != "table" {
		return missing("table")
	}
	arg, err := w.argument()
	if err != nil {
		return err
	}
	id, ok := names.Table(arg)
	if !ok {
		return w.wrong("no such table name")
	}
	c.Table = id
	return w.finish(nil)
}

func (w *words) addLink(names *routing.Names) (LinkChange, error) {
	c := LinkChange{Op: LinkAdd}
	for w.more() {
		switch word := w.take(); word {
		case "type":
			return c, w.newLink(&c, names)
		case "mtu":
			if err := w.mtu(&c); err != nil {
				return c, err
			}
		case "name", "dev":
			if err := w.device(&c.Name); err != nil {
				return c, err
			}
		default:
			if c.Name != "" {
				return c, w.wrong("unknown word")
			}
			c.Name = word
		}
	}
	return c, missing("type")
}

// newLink reads what follows the word type.
func (w *words) newLink(c *LinkChange, names *routing.Names) error {
	if !IsDeviceName(c.Name) {
		return &routing.ParseError{Word: c.Name, Reason: "not a device name"}
	}
	switch c.Type = LinkType(w.take()); c.Type {
	case TypeVRF:
		return w.vrf(c, names)
	case TypeVeth:
		return w.peer(c)
	}
	return w.wrong("want type vrf or veth")
}

// peer reads `peer [name] NAME netns NAMESPACE`.
func (w *words) peer(c *LinkChange) error {
	if w.take() != "peer" {
		return missing("peer")
	}
	for w.more() {
		var to *string
		switch w.take() {
		case "name":
			to = &c.Peer
		case "netns":
			to = &c.PeerNamespace
		default:
			return w.wrong("unknown word")
		}
		if err := w.device(to); err != nil {
			return err
		}
	}
	switch {
	case !IsDeviceName(c.Peer):
		return missing("peer name NAME, of at most 15 characters")
	case c.PeerNamespace == "":
		return missing("netns, the namespace of the other end")
	}
	return nil
}

func (w *words) deleteLink() (LinkChange, error) {
	c := LinkChange{Op: LinkDelete}
	if len(w.list) > 1 && w.list[0] == "dev" {
		w.take()
	}
	if err := w.device(&c.Name); err != nil {
		return c, err
	}
	if !w.more() {
		return c, nil
	}
	if w.take() != "type" {
		return c, w.wrong("unknown word")
	}
	if c.Type = LinkType(w.take()); c.Type != TypeVRF && c.Type != TypeVeth {
		return c, w.wrong("want type vrf or veth")
	}
	return c, w.finish(nil)
}

func (w *words) setLink() (LinkChange, error) {
	c := LinkChange{Op: LinkSet}
	if len(w.list) > 1 && w.list[0] == "dev" {
		w.take()
	}
	if err := w.device(&c.Name); err != nil {
		return c, err
	}
	if !w.more() {
		return c, missing("what to set")
	}
	return c, settingWords().each(w, &c, otherSetting)
}

func settingWords() keywords[LinkChange] {
	return keywords[LinkChange]{
		"mtu":      (*words).mtu,
		"master":   func(w *words, c *LinkChange) error { return w.device(&c.Master) },
		"vrf":      func(w *words, c *LinkChange) error { return w.device(&c.Master) },
		"nomaster": func(_ *words, c *LinkChange) error { c.NoMaster = true; return nil },
		"mirror": func(w *words, c *LinkChange) error {
			arg, err := w.argument()
			c.Said = append(c.Said, [2]string{"mirror_in", arg}, [2]string{"mirror_out", arg})
			return err
		},
		"up": nothing[LinkChange], // they are, always
	}
}

func (w *words) mtu(c *LinkChange) error {
	n, err := w.number(68, maxMTU)
	c.MTU = int(n)
	return err
}

// otherSetting takes a word and its value; whether the word has a meaning depends
// on what the device is.
func otherSetting(w *words, c *LinkChange) error {
	if word := w.word; !IsWord(OfPort, word) && !IsWord(OfDevice, word) {
		return w.wrong("unknown word")
	}
	word := w.word
	arg, err := w.argument()
	c.Said = append(c.Said, [2]string{word, arg})
	return err
}

// Settings are the words of LinkSet, as those of a kind.
func (c *LinkChange) Settings(k Kind, names *routing.Names) (Settings, error) {
	s := Settings{}
	for _, said := range c.Said {
		if err := s.Check(k, said[0], said[1], names); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ParseSettings reads words and values as they follow `link set DEV`.
func ParseSettings(k Kind, list []string, names *routing.Names) (Settings, error) {
	c := LinkChange{}
	if err := settingWords().each(newWords(list), &c, otherSetting); err != nil {
		return nil, err
	}
	if c.MTU != 0 || c.Master != "" || c.NoMaster {
		return nil, &routing.ParseError{Reason: "mtu and master are no settings of a port"}
	}
	return c.Settings(k, names)
}

// AddressChange is a line of ip-address(8): Op is add or del.
type AddressChange struct {
	Op     routing.Op
	Prefix netip.Prefix
	Dev    string
}

// ParseAddress reads what follows `ip addr`.
func ParseAddress(list []string) (AddressChange, error) {
	w := newWords(list)
	op, err := w.operation("add", "delete")
	if err != nil {
		return AddressChange{}, err
	}
	c := AddressChange{Op: op}
	table := keywords[AddressChange]{
		"dev":   func(w *words, c *AddressChange) error { return w.device(&c.Dev) },
		"local": func(w *words, c *AddressChange) error { return w.prefix(&c.Prefix) },
	}
	err = table.each(w, &c, func(w *words, c *AddressChange) error {
		if c.Prefix.IsValid() {
			return w.wrong("unknown word")
		}
		w.list = append([]string{w.word}, w.list...)
		return w.prefix(&c.Prefix)
	})
	switch {
	case err != nil:
		return c, err
	case !c.Prefix.IsValid():
		return c, missing("an address")
	case c.Dev == "":
		return c, missing("dev")
	}
	return c, CheckAddress(c.Prefix)
}

// CheckAddress refuses an address that no device can have.
func CheckAddress(p netip.Prefix) error {
	a := p.Addr()
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() && a.Is6() || a == packetBroadcast() {
		return &routing.ParseError{Word: p.String(), Reason: "not an address that a device can have"}
	}
	return nil
}

func packetBroadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// ExpandVRF replaces `vrf NAME` by the table of the VRF, as ip(8) does before it
// tells the kernel, and reports the VRF that is not there.
func ExpandVRF(list []string, table func(vrf string) (routing.TableID, bool)) ([]string, error) {
	out := make([]string, 0, len(list))
	for i := 0; i < len(list); i++ {
		if list[i] != "vrf" || i+1 == len(list) {
			out = append(out, list[i])
			continue
		}
		i++
		id, ok := table(list[i])
		if !ok {
			return nil, &routing.ParseError{Word: list[i], Reason: "no VRF of that name"}
		}
		out = append(out, "table", (*routing.Names)(nil).TableName(id))
	}
	return out, nil
}
