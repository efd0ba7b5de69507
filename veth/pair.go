// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
)

// The range of a veth's MTU: the smallest IPv4 allows (RFC 791) and the largest
// that the driver takes. IPv6 asks for 1280 (RFC 8200 §5).
const (
	MinMTU     = 68
	MinMTUIPv6 = 1280
	MaxMTU     = 65535
)

var (
	// ErrExist says that an interface of that name is there already.
	ErrExist = errors.New("interface exists")
	// ErrConfig says that a PairConfig contradicts itself or the kernel's limits.
	ErrConfig = errors.New("invalid interface configuration")
)

// PairConfig describes a veth pair: where its two ends are and how the
// container's end is configured.
type PairConfig struct {
	HostName string         // host end; at most 15 bytes
	HostNS   netns.NsHandle // namespace of the host end; stays the caller's
	// HostIndex is the host end's interface index; 0 lets the kernel choose. Give
	// one that no container uses: if both ends of a pair have the same index, the
	// kernel does not take them for stacked interfaces, and may wait up to a second
	// before it tells IPv6 about the carrier (linkwatch_urgent_event).
	HostIndex int
	Name      string         // container end; at most 15 bytes
	NS        netns.NsHandle // namespace of the container end; stays the caller's

	MAC     packet.MAC // of the container end; zero lets the kernel choose
	HostMAC packet.MAC // of the host end; zero lets the kernel choose
	MTU     int        // of both ends; MinMTU to MaxMTU

	Addresses []netip.Prefix // of the container end, with their prefix length
	Gateways  []netip.Addr   // a default route by each
	Routes    []Route        // further routes
	// Table is the routing table that all of these routes, and those to the addresses'
	// subnets, are put into, with a rule for each address that what is sent from it is
	// looked up there. 0: main, without rules.
	Table uint32

	TxQueueLen int    // of both ends; 0 is the kernel's default
	Alias      string // of the host end, shown by ip-link(8); "" is none
}

// Route is a route of the container end.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr // next hop; the zero Addr means that Dst is on the link

	MTU, AdvMSS int // of the route, as ip-route(8); 0 is none
	Metric      int // 0 is the kernel's default
	Table       int // 0 is that of all
}

// CreatePair makes a veth pair and configures both ends. Whatever goes wrong, it
// leaves nothing behind; ErrExist and ErrConfig tell the caller's mistakes apart.
//
// When it returns, both ends are up and the container's addresses are usable. The alias
// is set last: a pair that has it is whole, whenever its maker was killed.
//
// Open the port before anybody in the container waits for an answer.
func CreatePair(c PairConfig) error {
	if err := c.validate(); err != nil {
		return err
	}
	host, err := netlinkAt(c.HostNS)
	if err != nil {
		return err
	}
	defer host.Close()
	inside, err := netlinkAt(c.NS)
	if err != nil {
		return err
	}
	defer inside.Close()

	link, err := c.add(host, inside)
	if err != nil {
		return err
	}
	if err := c.configure(host, inside, link); err != nil {
		// By index: the name could have become somebody else's.
		return errors.Join(err, deleteLink(host, link))
	}
	return nil
}

// configure sets up both ends, the host's first: the container's then has its
// carrier, and with it its IPv6 addresses, at once.
func (c *PairConfig) configure(host, inside *netlink.Handle, link netlink.Link) error {
	if err := c.configureHost(host, link); err != nil {
		return fmt.Errorf("host end %s: %w", c.HostName, err)
	}
	if err := c.configureContainer(inside); err != nil {
		return fmt.Errorf("container end %s: %w", c.Name, err)
	}
	return setAlias(host, link, c.Alias)
}

// setAlias gives an interface an alias, unless it is to have none.
func setAlias(h *netlink.Handle, link netlink.Link, alias string) error {
	if alias == "" {
		return nil
	}
	if err := h.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("set alias: %w", err)
	}
	return nil
}

// add creates both ends with one RTM_NEWLINK, each in its namespace.
func (c *PairConfig) add(host, inside *netlink.Handle) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = c.HostName, c.MTU, hardwareAddr(c.HostMAC)
	attrs.Index = c.HostIndex
	if c.TxQueueLen > 0 {
		attrs.TxQLen = c.TxQueueLen
	}
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerMTU, pair.PeerHardwareAddr = c.Name, uint32(c.MTU), hardwareAddr(c.MAC)
	pair.PeerNamespace = netlink.NsFd(c.NS)

	if err := host.LinkAdd(pair); errors.Is(err, unix.EEXIST) {
		return nil, c.whichExists(inside)
	} else if err != nil {
		return nil, fmt.Errorf("create pair %s, %s: %w", c.HostName, c.Name, err)
	}
	// LinkAdd has looked the index up by name. Should that have failed, the pair
	// would be ours and without an index.
	if pair.Attrs().Index == 0 {
		link, err := host.LinkByName(c.HostName)
		if err != nil {
			return nil, fmt.Errorf("host end %s: %w", c.HostName, err)
		}
		return link, nil
	}
	return pair, nil
}

// whichExists turns the kernel's EEXIST into an error that names the end.
func (c *PairConfig) whichExists(inside *netlink.Handle) error {
	if _, err := inside.LinkByName(c.Name); err == nil {
		return fmt.Errorf("%w: %s in the container", ErrExist, c.Name)
	}
	return fmt.Errorf("%w: %s in the host namespace", ErrExist, c.HostName)
}

// validate checks what the kernel would refuse with a bare EINVAL, or not at all.
func (c *PairConfig) validate() error {
	for _, name := range []string{c.HostName, c.Name} {
		if !validName(name) {
			return fmt.Errorf("%w: interface name %q", ErrConfig, name)
		}
	}
	for _, mac := range []packet.MAC{c.MAC, c.HostMAC} {
		if mac.IsMulticast() {
			return fmt.Errorf("%w: group address %s as MAC", ErrConfig, mac)
		}
	}
	if err := c.validateRoutes(); err != nil {
		return err
	}
	lowest := MinMTU
	for _, a := range c.Addresses {
		if !a.IsValid() || a.Addr().Is4In6() {
			return fmt.Errorf("%w: address %s", ErrConfig, a)
		}
		if a.Addr().Is6() {
			lowest = MinMTUIPv6
		}
	}
	if c.MTU < lowest || c.MTU > MaxMTU {
		return fmt.Errorf("%w: MTU %d is not in %d..%d", ErrConfig, c.MTU, lowest, MaxMTU)
	}
	return nil
}

// validateRoutes wants whole addresses, and each next hop in the family of its
// destination.
func (c *PairConfig) validateRoutes() error {
	for _, gw := range c.Gateways {
		if !gw.IsValid() || gw.Is4In6() {
			return fmt.Errorf("%w: gateway %s", ErrConfig, gw)
		}
	}
	for _, r := range c.Routes {
		if !r.Dst.IsValid() || r.Via.IsValid() && r.Via.BitLen() != r.Dst.Addr().BitLen() {
			return fmt.Errorf("%w: route %s via %s", ErrConfig, r.Dst, r.Via)
		}
	}
	return nil
}

// validName is the kernel's dev_valid_name: 1 to 15 bytes, no slash, colon or
// space, and not a directory's name (interfaces are directories of sysfs). A
// percent sign would be taken as a pattern.
func validName(s string) bool {
	return s != "" && len(s) < unix.IFNAMSIZ && s != "." && s != ".." &&
		!strings.ContainsAny(s, "/:%\x00 \t\n\v\f\r")
}

// hardwareAddr is nil for the zero MAC: let the kernel choose.
func hardwareAddr(m packet.MAC) net.HardwareAddr {
	if m.IsZero() {
		return nil
	}
	return m[:]
}

// netlinkAt opens a route socket that works on namespace ns from any thread. The
// caller closes it.
func netlinkAt(ns netns.NsHandle) (*netlink.Handle, error) {
	var h *netlink.Handle
	err := Do(ns, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return h, nil
}

// doomed is the group (ip-link(8)) of host ends that are about to be deleted. The
// namespace of host ends has no interfaces but Sluice's.
const doomed = 0x51

// DeletePairs removes pairs by their host ends, or none of them if one is not a pair's;
// the containers' ends go with them. No such interface is not an error: the container may
// have been faster. The kernel waits for those who may still use an interface once for
// all of them, which is what takes the time.
func DeletePairs(hostNS netns.NsHandle, hostNames ...string) error {
	h, err := netlinkAt(hostNS)
	if err != nil {
		return err
	}
	defer h.Close()
	var links []netlink.Link
	for _, name := range hostNames {
		link, err := h.LinkByName(name)
		if isNoLink(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		if _, moved := readMemo(link.Attrs().Alias); moved || link.Type() != "veth" {
			return fmt.Errorf("%w: %s is not a pair's", ErrConfig, name)
		}
		links = append(links, link)
	}
	switch len(links) {
	case 0:
		return nil
	case 1:
		return deleteLink(h, links[0])
	}
	return deleteGroup(hostNS, h, links)
}

// deleteGroup deletes links with one request.
func deleteGroup(ns netns.NsHandle, h *netlink.Handle, links []netlink.Link) error {
	for _, link := range links {
		if err := h.LinkSetGroup(link, doomed); err != nil && !isNoLink(err) {
			return fmt.Errorf("group of %s: %w", link.Attrs().Name, err)
		}
	}
	return Do(ns, func() error {
		req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(doomed)))
		if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !isNoLink(err) {
			return fmt.Errorf("delete %d interfaces: %w", len(links), err)
		}
		return nil
	})
}

// deleteLink deletes by index; gone already is fine.
func deleteLink(h *netlink.Handle, link netlink.Link) error {
	err := h.LinkDel(link)
	if err != nil && !isNoLink(err) {
		return fmt.Errorf("delete %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// isNoLink recognises the two ways in which netlink tells that a link is gone.
func isNoLink(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV)
}
