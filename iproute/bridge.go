// SPDX-License-Identifier: Apache-2.0

package iproute

import (
	"net/netip"
	"strconv"

	"sluice/bridge"
	"sluice/packet"
	"sluice/routing"
)

// Station is a static entry of an FDB.
type Station struct {
	MAC  packet.MAC `json:"mac"`
	VLAN uint16     `json:"vlan,omitempty"`
	// Dev is the port: an attachment, or a network for its gateway's port. Empty
	// where the port is known otherwise.
	Dev string `json:"dev,omitempty"`
}

// String is the entry in the words of bridge(8).
func (s Station) String() string {
	text := s.MAC.String()
	if s.Dev != "" {
		text += " dev " + s.Dev
	}
	if s.VLAN != 0 {
		text += " vlan " + strconv.Itoa(int(s.VLAN))
	}
	return text + " static"
}

// StationChange is a line of `bridge fdb`. Op is add, append, replace, del or
// flush; flush names a port, and what is zero is not compared.
type StationChange struct {
	Op routing.Op
	Station
}

// ParseFDB reads what follows `bridge fdb`.
func ParseFDB(list []string) (StationChange, error) {
	w := newWords(list)
	op, err := w.operation("add", "append", "delete", "replace", "flush")
	if err != nil {
		return StationChange{}, err
	}
	c := StationChange{Op: op}
	if err := stationWords().each(w, &c.Station, plainStation); err != nil {
		return StationChange{}, err
	}
	switch {
	case c.MAC.IsZero() && op != routing.OpFlush:
		return c, missing("a link-layer address")
	case c.Dev == "":
		return c, missing("dev")
	}
	return c, nil
}

// ParseStation reads an entry without the operation; dev may be left out.
func ParseStation(list []string) (Station, error) {
	var s Station
	if err := stationWords().each(newWords(list), &s, plainStation); err != nil {
		return Station{}, err
	}
	if s.MAC.IsZero() {
		return s, missing("a link-layer address")
	}
	return s, nil
}

func stationWords() keywords[Station] {
	return keywords[Station]{
		"dev":       func(w *words, s *Station) error { return w.device(&s.Dev) },
		"vlan":      func(w *words, s *Station) error { return w.vid(&s.VLAN) },
		"vid":       func(w *words, s *Station) error { return w.vid(&s.VLAN) },
		"static":    nothing[Station],
		"permanent": nothing[Station],
		"master":    nothing[Station],
		"self":      nothing[Station],
		"local":     nothing[Station],
		"sticky":    nothing[Station], // static entries don't move in any case
		"dynamic":   func(w *words, _ *Station) error { return w.wrong("only static entries can be set") },
	}
}

func plainStation(w *words, s *Station) error {
	if !s.MAC.IsZero() {
		return w.wrong("unknown word")
	}
	return w.thisMAC(&s.MAC)
}

func (w *words) vid(to *uint16) error {
	n, err := w.number(1, bridge.MaxVID)
	*to = uint16(n)
	return err
}

// Group is a static member of a multicast group.
type Group struct {
	Group netip.Addr `json:"group"`
	VLAN  uint16     `json:"vlan,omitempty"`
	// Port is as Dev of a Station.
	Port string `json:"port,omitempty"`
}

// String is the entry in the words of bridge(8), less the bridge.
func (g Group) String() string {
	text := "grp " + g.Group.String()
	if g.Port != "" {
		text = "port " + g.Port + " " + text
	}
	if g.VLAN != 0 {
		text += " vid " + strconv.Itoa(int(g.VLAN))
	}
	return text + " permanent"
}

// GroupChange is a line of `bridge mdb`: Op is add, replace or del.
type GroupChange struct {
	Op routing.Op
	// Bridge is the network.
	Bridge string
	Group
}

// ParseMDB reads what follows `bridge mdb`.
func ParseMDB(list []string) (GroupChange, error) {
	w := newWords(list)
	op, err := w.operation("add", "delete", "replace")
	if err != nil {
		return GroupChange{}, err
	}
	c := GroupChange{Op: op}
	if err := groupWords().each(w, &c, unknown); err != nil {
		return c, err
	}
	switch {
	case c.Bridge == "":
		return c, missing("dev")
	case c.Port == "":
		return c, missing("port")
	case !c.Group.Group.IsValid():
		return c, missing("grp")
	}
	return c, nil
}

// ParseGroup reads an entry without operation and bridge; port may be left out,
// and so may the word grp.
func ParseGroup(list []string) (Group, error) {
	var c GroupChange
	err := groupWords().each(newWords(list), &c, func(w *words, c *GroupChange) error {
		if c.Group.Group.IsValid() {
			return w.wrong("unknown word")
		}
		return w.group(&c.Group.Group)
	})
	switch {
	case err != nil:
	case c.Bridge != "":
		err = &routing.ParseError{Word: "dev", Reason: "the network is known"}
	case !c.Group.Group.IsValid():
		err = missing("grp")
	}
	return c.Group, err
}

func groupWords() keywords[GroupChange] {
	return keywords[GroupChange]{
		"dev":       func(w *words, c *GroupChange) error { return w.device(&c.Bridge) },
		"port":      func(w *words, c *GroupChange) error { return w.device(&c.Port) },
		"grp":       func(w *words, c *GroupChange) error { w.take(); return w.group(&c.Group.Group) },
		"vid":       func(w *words, c *GroupChange) error { return w.vid(&c.VLAN) },
		"permanent": nothing[GroupChange],
		"temp":      func(w *words, _ *GroupChange) error { return w.wrong("only permanent entries can be set") },
		"src":       func(w *words, _ *GroupChange) error { return w.wrong("members of one source only are not supported") },
	}
}

// group reads the word that was just taken.
func (w *words) group(to *netip.Addr) error {
	if err := w.thisAddress(to); err != nil {
		return err
	}
	if !to.IsMulticast() || to.Is6() && to.IsInterfaceLocalMulticast() || to.IsLinkLocalMulticast() {
		return w.wrong("not a multicast group that is forwarded by membership")
	}
	return nil
}
