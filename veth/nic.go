// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
)

var (
	// ErrNoNIC says that the interface that is to be taken is not there.
	ErrNoNIC = errors.New("no such interface on the host")
	// ErrNoMacvlan says that the kernel has no macvlan.
	ErrNoMacvlan = errors.New("the kernel has no macvlan (CONFIG_MACVLAN): an interface can be given whole, without share")
)

// NIC is an interface of the host that becomes a port: moved to the host ends'
// namespace, or shared, by a macvlan on it that is made there.
type NIC struct {
	HomeNS netns.NsHandle // where it is from, and goes back to
	HostNS netns.NsHandle // of the host ends
	Name   string         // at home
	// HostName and ID are its name and its alias among the host ends.
	HostName, ID string
	HostIndex    int
	// Share is a mode of macvlan: bridge, private or passthru. Empty: it is moved.
	Share string
	MAC   packet.MAC // of a macvlan; zero for passthru, whose MAC is the interface's
	MTU   int        // 0: as it is
}

// nicAlias begins the alias of an interface that was moved. What follows says how it
// goes back, whatever becomes of the state file:
//
//	nic ID NAME MTU up|down ALIAS
const nicAlias = "nic "

// memo is what the alias of a moved interface says.
type memo struct {
	id, name string
	mtu      int
	up       bool
	alias    string
}

func (m memo) String() string {
	state := "down"
	if m.up {
		state = "up"
	}
	return strings.TrimRight(fmt.Sprintf("%s%s %s %d %s %s", nicAlias, m.id, m.name, m.mtu, state, m.alias), " ")
}

// readMemo is false for any other alias.
func readMemo(alias string) (m memo, ok bool) {
	rest, ok := strings.CutPrefix(alias, nicAlias)
	f := strings.SplitN(rest, " ", 5)
	if !ok || len(f) < 4 || !validName(f[1]) {
		return memo{}, false
	}
	m = memo{id: f[0], name: f[1], up: f[3] == "up"}
	if len(f) == 5 {
		m.alias = f[4]
	}
	m.mtu, _ = strconv.Atoi(f[2])
	return m, true
}

// Take makes the interface a host end: mute, up, with the MAC and MTU that it returns.
// It may be repeated after a kill at any point. ErrNoNIC: there is none of that name.
func (n NIC) Take() (mac packet.MAC, mtu int, err error) {
	home, err := netlinkAt(n.HomeNS)
	if err != nil {
		return mac, 0, err
	}
	defer home.Close()
	host, err := netlinkAt(n.HostNS)
	if err != nil {
		return mac, 0, err
	}
	defer host.Close()
	link, err := host.LinkByName(n.HostName)
	if isNoLink(err) {
		if err = n.bring(home); err == nil {
			link, err = host.LinkByName(n.HostName)
		}
	}
	if err != nil {
		return mac, 0, fmt.Errorf("interface %s: %w", n.Name, err)
	}
	if err := n.settle(host, link); err != nil {
		return mac, 0, fmt.Errorf("interface %s: %w", n.Name, err)
	}
	if link, err = host.LinkByIndex(link.Attrs().Index); err != nil {
		return mac, 0, fmt.Errorf("interface %s: %w", n.Name, err)
	}
	copy(mac[:], link.Attrs().HardwareAddr)
	if len(link.Attrs().HardwareAddr) != len(mac) || mac.IsZero() {
		return mac, 0, fmt.Errorf("%w: interface %s is no Ethernet", ErrConfig, n.Name)
	}
	return mac, link.Attrs().MTU, nil
}

// bring moves the interface, or makes the macvlan.
func (n NIC) bring(home *netlink.Handle) error {
	link, err := home.LinkByName(n.Name)
	if isNoLink(err) {
		return ErrNoNIC
	}
	if err != nil {
		return err
	}
	if n.Share != "" {
		return n.share(home, link)
	}
	a := link.Attrs()
	if _, marked := readMemo(a.Alias); !marked { // else a kill came in between
		m := memo{id: n.ID, name: n.Name, mtu: a.MTU, up: a.RawFlags&unix.IFF_UP != 0, alias: a.Alias}
		if err := home.LinkSetAlias(link, m.String()); err != nil {
			return fmt.Errorf("set alias: %w", err)
		}
	}
	return moveLink(home, n.HomeNS, link, n.HostNS, n.HostName)
}

// share makes a macvlan in the host ends' namespace. The interface below has to be up.
func (n NIC) share(home *netlink.Handle, link netlink.Link) error {
	mode := map[string]netlink.MacvlanMode{
		"bridge": netlink.MACVLAN_MODE_BRIDGE, "private": netlink.MACVLAN_MODE_PRIVATE, "passthru": netlink.MACVLAN_MODE_PASSTHRU,
	}[n.Share]
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Index = n.HostName, link.Attrs().Index, n.HostIndex
	attrs.Namespace, attrs.HardwareAddr = netlink.NsFd(n.HostNS), hardwareAddr(n.MAC)
	err := home.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: mode})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return ErrNoMacvlan
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("macvlan in mode %s: %w; somebody else may have the interface", n.Share, err)
	case isNoLink(err), err == nil: // LinkAdd looks for it where it isn't
	default:
		return fmt.Errorf("macvlan in mode %s: %w", n.Share, err)
	}
	return home.LinkSetUp(link)
}

// moveLink is "ip link set dev INDEX netns NS name NAME" (ip-link(8)) in one request,
// which the netlink library has no word for: so no name of either namespace is in the way.
func moveLink(h *netlink.Handle, from netns.NsHandle, link netlink.Link, to netns.NsHandle, name string) error {
	if err := h.LinkSetDown(link); err != nil {
		return fmt.Errorf("set down: %w", err)
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index)
	err := Do(from, func() error {
		req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
		req.AddData(msg)
		req.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(to))))
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("move: %w", err)
	}
	return nil
}

// settle lets the interface hear all groups, makes it mute, and sets it up: one that is
// not up, or a macvlan without its alias, is not settled.
func (n NIC) settle(h *netlink.Handle, link netlink.Link) error {
	if n.MTU != 0 && link.Attrs().MTU != n.MTU {
		if err := h.LinkSetMTU(link, n.MTU); err != nil {
			return fmt.Errorf("mtu %d: %w", n.MTU, err)
		}
	}
	if err := h.LinkSetAllmulticastOn(link); err != nil {
		return fmt.Errorf("hear groups: %w", err)
	}
	// Frames that were merged without keeping what they were merged of can't be forwarded.
	if err := Do(n.HostNS, func() error { _ = setFeatures(n.HostName, []feature{{"rx-lro", false}}); return nil }); err != nil {
		return err
	}
	c := PairConfig{HostName: n.HostName, HostNS: n.HostNS}
	if err := c.configureHost(h, link); err != nil || n.Share == "" {
		return err
	}
	return setAlias(h, link, n.ID)
}

// GiveBack returns an interface that Take has moved, or may have begun to, or deletes the
// macvlan. It is down in between: who is on the wire sees it go. None is no error.
func (n NIC) GiveBack() error {
	home, err := netlinkAt(n.HomeNS)
	if err != nil {
		return err
	}
	defer home.Close()
	host, err := netlinkAt(n.HostNS)
	if err != nil {
		return err
	}
	defer host.Close()
	link, err := host.LinkByName(n.HostName)
	if err == nil {
		return n.giveBack(host, home, link)
	}
	if !isNoLink(err) {
		return fmt.Errorf("interface %s: %w", n.HostName, err)
	}
	if link, err = home.LinkByName(n.Name); err != nil {
		return nil // it is gone, with whatever was to be done
	}
	if m, ok := readMemo(link.Attrs().Alias); ok && m.id == n.ID {
		return m.release(home, link)
	}
	return nil
}

// RemoveEnd removes a host end: a pair or a macvlan is deleted, an interface that was
// moved goes home.
func RemoveEnd(hostNS, homeNS netns.NsHandle, name string) error {
	return NIC{HomeNS: homeNS, HostNS: hostNS, HostName: name}.GiveBack()
}

func (n NIC) giveBack(host, home *netlink.Handle, link netlink.Link) error {
	a := link.Attrs()
	m, moved := readMemo(a.Alias)
	switch {
	case moved:
	case link.Type() == "veth" || link.Type() == "macvlan":
		return deleteLink(host, link)
	default:
		return fmt.Errorf("%w: %s is none of ours", ErrConfig, a.Name)
	}
	if err := m.unmute(host, link); err != nil {
		return fmt.Errorf("interface %s: %w", m.name, err)
	}
	name := m.name
	if other, err := home.LinkByName(name); err == nil && other != nil {
		name = a.Name // somebody else is called so by now
	}
	if err := moveLink(host, n.HostNS, link, n.HomeNS, name); err != nil {
		return fmt.Errorf("interface %s: %w", m.name, err)
	}
	back, err := home.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return m.release(home, back)
}

// unmute undoes what settle does to an interface.
func (m memo) unmute(host *netlink.Handle, link netlink.Link) error {
	if err := host.LinkSetAllmulticastOff(link); err != nil {
		return err
	}
	if err := host.LinkSetARPOn(link); err != nil {
		return err
	}
	if m.mtu != 0 && m.mtu != link.Attrs().MTU {
		return host.LinkSetMTU(link, m.mtu)
	}
	return nil
}

// release makes an interface at home what it was.
func (m memo) release(home *netlink.Handle, link netlink.Link) error {
	if err := home.LinkSetAlias(link, m.alias); err != nil {
		return fmt.Errorf("interface %s: set alias: %w", m.name, err)
	}
	if !m.up {
		return nil
	}
	if err := home.LinkSetUp(link); err != nil {
		return fmt.Errorf("interface %s: set up: %w", m.name, err)
	}
	return nil
}
