// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"

	"golang.org/x/sys/unix"

	"sluice/veth"
)

// Wire is the interface of a namespace in the test's own hands: frames are sent and
// received one by one, and the namespace's kernel has no part in it.
type Wire struct {
	lab  *Lab
	ns   *NS
	fd   int
	buf  []byte
	seen uint32
}

// markType is the type of frames that a wire sends behind others.
const markType = 0x88b5 // IEEE 802: for local experiments

// Wire takes the interface's addresses away, so that nobody else answers, and opens it.
func (n *NS) Wire() *Wire {
	n.lab.t.Helper()
	n.Run("sysctl", "-q", "-w", "net.ipv6.conf."+n.ifname+".disable_ipv6=1")
	n.Run("ip", "addr", "flush", "dev", n.ifname)
	n.Run("ip", "link", "set", n.ifname, "arp", "off")
	w := &Wire{lab: n.lab, ns: n, buf: make([]byte, 1<<16)}
	ns, err := veth.OpenNetNS(n.Path())
	if err == nil {
		defer ns.Close()
		err = veth.Do(ns, w.open)
	}
	if err != nil {
		n.lab.t.Fatalf("%s: packet socket: %v", n.full, err)
	}
	n.lab.t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

func (w *Wire) open() (err error) {
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	ifi, err := net.InterfaceByName(w.ns.ifname)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index}),
	)
}

// Send sends a frame.
func (w *Wire) Send(frame []byte) {
	w.lab.t.Helper()
	if _, err := unix.Write(w.fd, frame); err != nil {
		w.lab.t.Fatalf("%s: send: %v", w.ns.full, err)
	}
}

// Mark sends a frame to all others of the network, behind what was sent before. It
// returns its number, which is never 0.
func (w *Wire) Mark() uint32 {
	w.lab.t.Helper()
	n := uint32(w.lab.count())
	b := make([]byte, 60)
	copy(b, "\xff\xff\xff\xff\xff\xff")
	mac := MAC(w.ns.mac)
	copy(b[6:], mac[:])
	binary.BigEndian.PutUint16(b[12:], markType)
	binary.BigEndian.PutUint32(b[14:], n)
	w.Send(b)
	return n
}

// Seen is the number of the last mark that was received.
func (w *Wire) Seen() uint32 { return w.seen }

// Receive returns what has arrived by now, without marks.
func (w *Wire) Receive() (frames [][]byte) {
	w.lab.t.Helper()
	for {
		n, err := unix.Read(w.fd, w.buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return frames
		case err != nil:
			w.lab.t.Fatalf("%s: receive: %v", w.ns.full, err)
		case n >= 18 && binary.BigEndian.Uint16(w.buf[12:]) == markType:
			w.seen = binary.BigEndian.Uint32(w.buf[14:])
		default:
			frames = append(frames, bytes.Clone(w.buf[:n]))
		}
	}
}
