// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"slices"

	"sluice/config"
	"sluice/iproute"
	"sluice/routing"
)

// member is a port of a bridge: an attachment's, or, if that is nil, the gateway's.
type member struct {
	network    *networkRecord
	attachment *attachmentRecord
}

// member finds a port by its name.
func (e *editor) member(name string) (member, error) {
	if e.isNetwork(name) {
		return member{network: e.st.network(name)}, nil
	}
	a := e.attachment(name)
	if a == nil {
		return member{}, noDevice(name)
	}
	return member{e.st.network(a.Network), a}, nil
}

// name is what entries of the network call the port.
func (m member) name() string {
	if m.attachment != nil {
		return m.attachment.Name
	}
	return m.network.Name
}

// changed notes that the record of the port changes. Entries of the gateway's port
// are in the network's, and so are those that the file declares for a container's.
func (e *editor) changed(m member) {
	e.networks[m.network.Name] = true
	if m.attachment != nil {
		e.attachments[m.attachment.ID] = true
	}
}

// station is `fdb`.
func (e *editor) station(words []string) error {
	c, err := iproute.ParseFDB(words)
	if err != nil {
		return err
	}
	m, err := e.member(c.Dev)
	if err != nil {
		return err
	}
	is := func(s iproute.Station) bool { return s.MAC == c.MAC && s.VLAN == c.VLAN }
	if c.Op == routing.OpFlush {
		e.dropStations(m, func(s iproute.Station) bool {
			return (c.MAC.IsZero() || c.MAC == s.MAC) && (c.VLAN == 0 || c.VLAN == s.VLAN)
		})
		return nil
	}
	if c.Op == routing.OpDelete {
		if !e.dropStations(m, is) {
			return routing.ErrNoEnt
		}
		return nil
	}
	return e.addStation(m, &c, is)
}

func (e *editor) addStation(m member, c *iproute.StationChange, is func(iproute.Station) bool) error {
	all := e.stations(m.network)
	switch {
	case m.attachment == nil:
		return errNotSupported // the gateway has one address
	case e.st.macTaken(m.network.Name)(c.MAC):
		return routing.ErrExist // a container's or the gateway's, which is known
	case slices.ContainsFunc(all, is) && c.Op != routing.OpReplace:
		return routing.ErrExist
	case len(all) >= config.MaxEntries:
		return fmt.Errorf("static entries: %w at %d", routing.ErrLimit, config.MaxEntries)
	}
	e.dropFromAll(m.network, is)
	m.attachment.Stations = append(slices.Clone(m.attachment.Stations), iproute.Station{MAC: c.MAC, VLAN: c.VLAN})
	e.changed(m)
	return nil
}

// stations are all static entries of a network.
func (e *editor) stations(n *networkRecord) []iproute.Station {
	all := slices.Clone(n.Stations)
	for _, a := range e.st.of(n.Name) {
		all = append(all, a.Stations...)
	}
	return all
}

// dropFromAll removes an entry from whichever port has it.
func (e *editor) dropFromAll(n *networkRecord, is func(iproute.Station) bool) {
	for _, a := range e.st.of(n.Name) {
		if slices.ContainsFunc(a.Stations, is) {
			a.Stations = slices.DeleteFunc(slices.Clone(a.Stations), is)
			e.attachments[a.ID] = true
		}
	}
	if slices.ContainsFunc(n.Stations, is) {
		n.Stations = slices.DeleteFunc(slices.Clone(n.Stations), is)
		e.networks[n.Name] = true
	}
}

// dropStations removes entries of a port, and reports whether there were any.
func (e *editor) dropStations(m member, is func(iproute.Station) bool) bool {
	declared := func(s iproute.Station) bool { return s.Dev == m.name() && is(s) }
	found := slices.ContainsFunc(m.network.Stations, declared)
	if found {
		m.network.Stations = slices.DeleteFunc(slices.Clone(m.network.Stations), declared)
	}
	if a := m.attachment; a != nil && slices.ContainsFunc(a.Stations, is) {
		a.Stations, found = slices.DeleteFunc(slices.Clone(a.Stations), is), true
	}
	if found {
		e.changed(m)
	}
	return found
}

// vlan is `vlan`.
func (e *editor) vlan(words []string) error {
	c, err := iproute.ParseVLAN(words)
	if err != nil {
		return err
	}
	m, err := e.member(c.Dev)
	if err != nil {
		return err
	}
	was := m.network.VLAN
	if m.attachment != nil {
		was = m.attachment.vlan(m.network)
	}
	next, err := was.With(c)
	switch {
	case err != nil:
		return err
	case m.attachment == nil && next.Aware() && next.PVID == 0:
		return errors.New("the gateway needs a pvid, since it knows no tags")
	}
	e.changed(m)
	switch {
	case m.attachment != nil:
		m.attachment.VLAN = next
	case next.Aware():
		m.network.VLAN = next
	default:
		m.network.VLAN = nil
	}
	return nil
}

// group is `mdb`.
func (e *editor) group(words []string) error {
	c, err := iproute.ParseMDB(words)
	if err != nil {
		return err
	}
	m, err := e.member(c.Port)
	switch {
	case !e.isNetwork(c.Bridge):
		return noDevice(c.Bridge)
	case err != nil:
		return err
	case m.network.Name != c.Bridge:
		return noDevice(c.Port)
	}
	return e.changeGroup(m, &c)
}

func (e *editor) changeGroup(m member, c *iproute.GroupChange) error {
	own := iproute.Group{Group: c.Group.Group, VLAN: c.VLAN}
	declared := own
	declared.Port = m.name()
	there := slices.Contains(m.network.Groups, declared) || m.attachment != nil && slices.Contains(m.attachment.Groups, own)
	switch {
	case m.network.Snooping == nil:
		return errNotSupported
	case c.Op == routing.OpDelete && !there:
		return routing.ErrNoEnt
	case c.Op == routing.OpDelete:
		e.leave(m, own, declared)
		return nil
	case there && c.Op == routing.OpAdd:
		return routing.ErrExist
	case there:
		return nil
	case e.groups(m.network) >= config.MaxEntries:
		return fmt.Errorf("static members: %w at %d", routing.ErrLimit, config.MaxEntries)
	}
	if m.attachment != nil {
		m.attachment.Groups = append(slices.Clone(m.attachment.Groups), own)
	} else {
		m.network.Groups = append(slices.Clone(m.network.Groups), declared)
	}
	e.changed(m)
	return nil
}

// groups counts the static members of a network.
func (e *editor) groups(n *networkRecord) int {
	count := len(n.Groups)
	for _, a := range e.st.of(n.Name) {
		count += len(a.Groups)
	}
	return count
}

func (e *editor) leave(m member, own, declared iproute.Group) {
	m.network.Groups = slices.DeleteFunc(slices.Clone(m.network.Groups), func(g iproute.Group) bool { return g == declared })
	if a := m.attachment; a != nil {
		a.Groups = slices.DeleteFunc(slices.Clone(a.Groups), func(g iproute.Group) bool { return g == own })
	}
	e.changed(m)
}
