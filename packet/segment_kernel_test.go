// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// TestSegmenterAgreesWithKernel has the kernel segment the same frames:
//
//	AF_PACKET + vnet header --> slt-tx ===== slt-rx --> AF_PACKET
//	                            no offloads            capture
//
// slt-tx has its offloads off, so that validate_xmit_skb segments and sums in
// software before the frame crosses the pair. Both ends lie in a network
// namespace of this test's own, which ends with its thread.
func TestSegmenterAgreesWithKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	k := newKernel(t)
	r := rand.New(rand.NewPCG(17, 17))
	for range 300 {
		u := randomSuper(r, 40)
		if tooLong(u) || notSegmented(u) {
			continue
		}
		f := u.frame()
		if r.IntN(8) == 0 { // a wrong partial sum must come out equally wrong
			csum := f.Bytes()[f.Vnet.CsumStart+f.Vnet.CsumOffset:]
			binary.BigEndian.PutUint16(csum, uint16(r.Uint32()))
		}
		ours := segment(t, f)
		compare(t, u, ours, k.segment(t, f, len(ours)))
	}
}

// notSegmented reports whether the data fits into one segment, but not together
// with TCP options: such a frame, which no kernel makes, the kernel drops
// (tcp_gso_segment), whereas the Segmenter passes it once.
func notSegmented(u super) bool {
	return u.tcp != nil && len(u.data) <= u.size && len(u.data)+len(u.tcp.Options) > u.size
}

// TestSegmenterAgreesWithKernelOnZeroSums looks for segments whose checksum
// comes out as 0, which TCP keeps and UDP must not.
func TestSegmenterAgreesWithKernelOnZeroSums(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	k := newKernel(t)
	for name, u := range map[string]super{
		"tcp in ipv4": {tcp: &pt.TCPHdr{Flags: pt.ACK}, data: pt.Bytes(40), size: 20},
		"udp in ipv4": {data: pt.Bytes(40), size: 20},
		"udp in ipv6": {ip6: &pt.IPv6Hdr{}, data: pt.Bytes(40), size: 20},
		"one segment": {tcp: &pt.TCPHdr{Flags: pt.ACK}, data: pt.Bytes(20), size: 20},
	} {
		t.Run(name, func(t *testing.T) {
			// What the first segment's sum lacks to 0 is put into its data.
			f := u.frame()
			first := pt.Frame(segment(t, f)[0])
			csum := binary.BigEndian.Uint16(first.Bytes()[first.View.L4+int(f.Vnet.CsumOffset):])
			binary.BigEndian.PutUint16(u.data, packet.Sum(u.data[:2], csum))
			f = u.frame()
			ours := segment(t, f)
			first = pt.Frame(ours[0])
			if csum := binary.BigEndian.Uint16(first.Bytes()[first.View.L4+int(f.Vnet.CsumOffset):]); csum != 0 && csum != 0xffff {
				t.Fatalf("checksum %#04x, want the zero that this is about", csum)
			}
			compare(t, u, ours, k.segment(t, f, len(ours)))
		})
	}
}

// kernel is a veth pair whose sending end has no offloads.
type kernel struct {
	tx, rx int // packet sockets
}

// newKernel makes the pair. It locks the test's goroutine to its thread for
// good: the thread, and with it the namespace, ends with the test.
func newKernel(t *testing.T) *kernel {
	t.Helper()
	runtime.LockOSThread()
	must(t, "unshare", unix.Unshare(unix.CLONE_NEWNET))
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "slt-tx", MTU: 65535, TxQLen: 1000},
		PeerName:  "slt-rx",
	}
	must(t, "add veth", netlink.LinkAdd(pair))
	peer, err := netlink.LinkByName("slt-rx")
	must(t, "find peer", err)
	must(t, "peer's MTU", netlink.LinkSetMTU(peer, 65535))
	for _, l := range []netlink.Link{pair, peer} {
		must(t, "set up", netlink.LinkSetUp(l))
	}
	for _, name := range []string{"slt-tx", "slt-rx"} {
		awaitUp(t, name)
	}
	offloadsOff(t, "slt-tx")
	return &kernel{tx: packetSocket(t, pair.Index, unix.PACKET_VNET_HDR), rx: packetSocket(t, peer.Attrs().Index, unix.PACKET_AUXDATA)}
}

// awaitUp awaits that the kernel has seen the carrier. Until then a device has
// no queue, and loses what is sent.
func awaitUp(t *testing.T, name string) {
	t.Helper()
	for range 200 {
		l, err := netlink.LinkByName(name)
		must(t, name, err)
		if l.Attrs().OperState == netlink.OperUp {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s doesn't come up", name)
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func offloadsOff(t *testing.T, name string) {
	t.Helper()
	e, err := ethtool.NewEthtool()
	must(t, "ethtool", err)
	defer e.Close()
	off := map[string]bool{}
	for _, feature := range []string{
		"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation",
		"tx-udp-segmentation", "tx-checksum-ip-generic", "tx-vlan-hw-insert", "tx-vlan-stag-hw-insert",
	} {
		off[feature] = false
	}
	must(t, "offloads off", e.Change(name, off))
	features, err := e.Features(name)
	must(t, "features", err)
	for feature := range off {
		if features[feature] {
			t.Fatalf("%s of %s stays on: the kernel would not segment", feature, name)
		}
	}
}

// packetSocket is a raw socket on one interface, with the option on. It waits
// two seconds at most.
func packetSocket(t *testing.T, ifindex, option int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, "packet socket", err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, "option", unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1))
	must(t, "ignore outgoing", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	must(t, "receive buffer", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
	must(t, "send buffer", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20))
	wait := unix.NsecToTimeval((2 * time.Second).Nanoseconds())
	must(t, "timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	must(t, "bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}))
	return fd
}

// segment sends the frame and returns what arrives, at most n frames of ours
// and any that come after them without waiting.
func (k *kernel) segment(t *testing.T, f *packet.Frame, n int) [][]byte {
	t.Helper()
	if _, err := unix.Write(k.tx, f.Wire()); err != nil {
		t.Fatalf("the kernel refuses %s, %+v: %v", pt.Describe(f.Bytes()), f.Vnet, err)
	}
	src := f.SrcMAC()
	var out [][]byte
	for flags := 0; ; {
		if len(out) == n {
			flags = unix.MSG_DONTWAIT // the veth delivers in order: one too many is there already, or soon
		}
		b, err := k.receive(flags)
		if errors.Is(err, unix.EINTR) { // Go's own signals
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return out
		}
		must(t, "receive", err)
		if pt.Frame(b).SrcMAC() == src { // the kernel's own neighbour discovery is none of ours
			out = append(out, b)
		}
	}
}

// receive reads a frame and puts back the VLAN tag that the kernel took off.
func (k *kernel) receive(flags int) ([]byte, error) {
	b, control := make([]byte, packet.BufLen), make([]byte, 256)
	n, nc, _, _, err := unix.Recvmsg(k.rx, b, control, flags)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:nc])
	if err != nil {
		return nil, err
	}
	f := pt.Frame(b[:n])
	f.View = packet.View{}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		tci, tpid := binary.NativeEndian.Uint16(m.Data[16:]), binary.NativeEndian.Uint16(m.Data[18:])
		if status&unix.TP_STATUS_VLAN_VALID != 0 && !f.PushVLAN(tpid, tci) {
			return nil, errors.New("no room for the tag")
		}
	}
	return f.Bytes(), nil
}
