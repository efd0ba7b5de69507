// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	kt "sluice/test/kerneltest"
)

// kernel is the oracle: a network namespace with the devices
//
//	slt-d1 ---- slt-e1   10.64.1.1/24  fd64:1::1/64   on slt-d1
//	slt-d2 ---- slt-e2   10.64.2.1/24  fd64:2::1/64   on slt-d2
//	slt-d3 ---- slt-e3   10.64.3.1/24  fd64:3::1/64   on slt-d3
type kernel struct {
	t    *testing.T
	devs map[uint32]string // by index
}

const kernelDevices = 3

func newKernel(t *testing.T) *kernel {
	t.Helper()
	kt.Enter(t)
	kt.Forward(t)
	kt.IP(t, "link set lo up")
	for n := 1; n <= kernelDevices; n++ {
		kt.IP(t, fmt.Sprintf("link add slt-d%d type veth peer name slt-e%d", n, n),
			fmt.Sprintf("link set slt-d%d up", n), fmt.Sprintf("link set slt-e%d up", n),
			fmt.Sprintf("addr add 10.64.%d.1/24 dev slt-d%d", n, n), fmt.Sprintf("addr add fd64:%d::1/64 dev slt-d%d nodad", n, n))
	}
	k := &kernel{t: t, devs: map[uint32]string{}}
	for l := range strings.Lines(kt.Run(t, "ip", "-o", "link", "show")) {
		var index uint32
		var name string
		if _, err := fmt.Sscanf(l, "%d: %s", &index, &name); err == nil {
			name, _, _ = strings.Cut(strings.TrimSuffix(name, ":"), "@")
			k.devs[index] = name
		}
	}
	return k
}

// try gives lines to ip(8) that may be refused; it returns the numbers of those, from 1.
func (k *kernel) try(family string, lines []string) map[int]bool {
	cmd := exec.Command("ip", family, "-force", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	out, _ := cmd.CombinedOutput()
	refused := map[int]bool{}
	for l := range strings.Lines(string(out)) {
		var n int
		if _, err := fmt.Sscanf(l, "Command failed -:%d", &n); err == nil {
			refused[n] = true
		}
	}
	return refused
}

// routes are the kernel's routes as ip(8) shows them, in the form of Route.String.
func (k *kernel) routes(family string) []string {
	k.t.Helper()
	var all []string
	for l := range strings.Lines(kt.Run(k.t, "ip", family, "route", "show", "table", "all")) {
		l = strings.TrimRight(l, " \n")
		if strings.HasPrefix(l, "\t") {
			all[len(all)-1] += "\n" + l
		} else if l != "" {
			all = append(all, l)
		}
	}
	return all
}

// mirror makes a Set with the kernel's devices and the routes that it has now.
func (k *kernel) mirror() *Set {
	k.t.Helper()
	var list []Change
	for index, name := range k.devs {
		if name != loopback {
			list = append(list, Change{Device: &Device{Name: name, Index: uint16(index)}})
		}
	}
	for _, family := range []string{"-4", "-6"} {
		routes := k.routes(family)
		// Local ones first: they are what a source must be.
		slices.SortStableFunc(routes, func(a, b string) int {
			return b2i(strings.HasPrefix(b, "local ")) - b2i(strings.HasPrefix(a, "local "))
		})
		for _, l := range routes {
			c, err := ParseRoute(family + " append " + l)
			if err != nil {
				k.t.Fatalf("%s: %v", l, err)
			}
			list = append(list, c)
		}
	}
	s, err := New(Limits{}).Apply(list)
	if err != nil {
		k.t.Fatal(err)
	}
	return s
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// The flags ask for the route instead of what it is resolved to, and for its table.
const rtmFibMatch, rtmLookupTable = 0x2000, 0x1000

// lookup asks the kernel what its tables say: the answer as answer writes it, or
// the errno.
func (k *kernel) lookup(q *Query) (string, unix.Errno) {
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_REQUEST)
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: unix.AF_INET, Dst_len: uint8(q.Dst.BitLen()), Tos: q.TOS, Flags: rtmFibMatch | rtmLookupTable,
	}}
	if q.Dst.Is6() {
		msg.Family = unix.AF_INET6
	}
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.RTA_DST, q.Dst.AsSlice()))
	if q.Src.IsValid() {
		msg.Src_len = uint8(q.Src.BitLen())
		req.AddData(nl.NewRtAttr(unix.RTA_SRC, q.Src.AsSlice()))
	}
	for kind, value := range map[int]uint32{
		unix.RTA_IIF: uint32(q.IIF), unix.RTA_OIF: uint32(q.OIF), unix.RTA_MARK: q.Mark,
	} {
		if value != 0 {
			req.AddData(nl.NewRtAttr(kind, nl.Uint32Attr(value)))
		}
	}
	if q.Proto != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_IP_PROTO, []byte{q.Proto}))
		req.AddData(nl.NewRtAttr(unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, q.Sport)))
		req.AddData(nl.NewRtAttr(unix.RTA_DPORT, binary.BigEndian.AppendUint16(nil, q.Dport)))
	}
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return "", errno
	}
	if err != nil || len(msgs) != 1 {
		k.t.Fatalf("route get: %v, %d messages", err, len(msgs))
	}
	return k.answer(msgs[0])
}

// answer writes a kernel's route as type, table, prefix, metric and next hops.
func (k *kernel) answer(m []byte) (string, unix.Errno) {
	msg := nl.DeserializeRtMsg(m)
	attrs, err := nl.ParseRouteAttr(m[msg.Len():])
	if err != nil {
		k.t.Fatal(err)
	}
	var metric, table uint32
	addr := netip.IPv4Unspecified()
	if msg.Family == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	var hops []string
	single := map[uint16][]byte{}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_DST:
			addr, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_PRIORITY:
			metric = binary.NativeEndian.Uint32(a.Value)
		case unix.RTA_TABLE:
			table = binary.NativeEndian.Uint32(a.Value)
		case unix.RTA_MULTIPATH:
			hops = k.multipath(a.Value)
		default:
			single[a.Attr.Type] = a.Value
		}
	}
	if hops == nil {
		hops = []string{k.hop(single[unix.RTA_GATEWAY], single[unix.RTA_OIF])}
	}
	if Type(msg.Type).refuses() {
		hops = nil
	}
	return answerText(Type(msg.Type), TableID(table), netip.PrefixFrom(addr, int(msg.Dst_len)), metric, hops), 0
}

func (k *kernel) multipath(b []byte) (hops []string) {
	for len(b) >= unix.SizeofRtNexthop {
		size := binary.NativeEndian.Uint16(b)
		var gateway []byte
		attrs, err := nl.ParseRouteAttr(b[unix.SizeofRtNexthop:size])
		if err != nil {
			k.t.Fatal(err)
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.RTA_GATEWAY {
				gateway = a.Value
			}
		}
		hops = append(hops, k.hop(gateway, b[4:8]))
		b = b[min(len(b), int(size+3)&^3):]
	}
	return hops
}

func (k *kernel) hop(gateway, oif []byte) string {
	var via netip.Addr
	if len(gateway) > 0 && len(bytes.Trim(gateway, "\x00")) > 0 {
		via, _ = netip.AddrFromSlice(gateway)
	}
	return fmt.Sprint(via, " ", k.devs[binary.NativeEndian.Uint32(oif)])
}

func answerText(t Type, table TableID, p netip.Prefix, metric uint32, hops []string) string {
	slices.Sort(hops)
	return fmt.Sprintf("%v table %d %v metric %d %v", t, table, p, metric, hops)
}

// ourAnswer is a Result in the same words, or the errno that Linux has for it.
func ourAnswer(res *Result) (string, unix.Errno) {
	switch {
	case res.Type == TypeNone, res.Type == Unreachable && res.Route == nil:
		return "", unix.ENETUNREACH
	case res.Type == Unreachable:
		return "", unix.EHOSTUNREACH
	case res.Type == Prohibit:
		return "", unix.EACCES
	case res.Type == Blackhole:
		return "", unix.EINVAL
	}
	var hops []string
	for _, h := range res.Route.NextHops {
		hops = append(hops, fmt.Sprint(h.Via, " ", h.Dev))
	}
	return answerText(res.Type, res.Table, res.Route.Prefix, res.Route.Metric, hops), 0
}
