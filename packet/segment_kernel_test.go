// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
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
	tx, rx *kt.End
}

func newKernel(t *testing.T) *kernel {
	t.Helper()
	kt.Enter(t)
	kt.IP(t, "link add slt-tx mtu 65535 txqueuelen 1000 type veth peer name slt-rx mtu 65535", "link set slt-tx up", "link set slt-rx up")
	kt.AwaitUp(t, "slt-tx", "slt-rx")
	offloadsOff(t, "slt-tx")
	k := &kernel{tx: kt.Open(t, "slt-tx"), rx: kt.Open(t, "slt-rx")}
	k.tx.Set(unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	k.rx.Set(unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
	return k
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

// segment sends the frame and returns what arrives, at most n frames of ours
// and any that come after them without waiting.
func (k *kernel) segment(t *testing.T, f *packet.Frame, n int) [][]byte {
	t.Helper()
	if _, err := unix.Write(k.tx.FD, f.Wire()); err != nil {
		t.Fatalf("the kernel refuses %s, %+v: %v", pt.Describe(f.Bytes()), f.Vnet, err)
	}
	src := f.SrcMAC()
	var out [][]byte
	for {
		long := 2 * time.Second
		if len(out) == n {
			long = 0 // the veth delivers in order: one too many is there already, or soon
		}
		b, err := k.receive(long)
		must(t, "receive", err)
		if b == nil {
			return out
		}
		if pt.Frame(b).SrcMAC() == src { // the kernel's own neighbour discovery is none of ours
			out = append(out, b)
		}
	}
}

// receive reads a frame and puts back the VLAN tag that the kernel took off; nil if
// none comes in time.
func (k *kernel) receive(long time.Duration) ([]byte, error) {
	if !k.rx.Wait(long) {
		return nil, nil
	}
	b, control := make([]byte, packet.BufLen), make([]byte, 256)
	n, nc, _, _, err := unix.Recvmsg(k.rx.FD, b, control, 0)
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
