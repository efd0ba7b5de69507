// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/veth"
)

// rawSocket sends frames with a virtio-net header from inside a container, as one
// with CAP_NET_RAW can.
func rawSocket(t testing.TB, ns netns.NsHandle, name string) int {
	t.Helper()
	fd := -1
	err := veth.Do(ns, func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// flood lets container 1 send frames as fast as it can until stop is called.
func (l *kernelLab) flood(frames ...*packet.Frame) (stop func()) {
	fd := rawSocket(l.t, l.ns[1], "slt-c1")
	var end atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; !end.Load(); i++ {
			_ = unix.Send(fd, frames[i%len(frames)].Wire(), unix.MSG_DONTWAIT)
		}
	}()
	return func() { end.Store(true); <-ended }
}

// floods are what a container can ask of the gateway at will.
func floods() map[string][]*packet.Frame {
	to := pt.Packet{SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: gateway4(), Payload: pt.Bytes(20)}
	echo, closed := to, to
	echo.DstPort, closed.DstPort = echoPort, 99
	var syns []*packet.Frame
	for i := range 1000 {
		tcp := pt.TCPHdr{SrcPort: uint16(2000 + i), DstPort: echoPort, Flags: pt.SYN, Window: 1000}
		syns = append(syns, pt.Frame(pt.Build(pt.EtherHdr{Src: mac(1), Dst: gatewayMAC()}, pt.IPv4Hdr{Src: addr4(1), Dst: gateway4()}, tcp)))
	}
	return map[string][]*packet.Frame{
		"pings":                {pt.Frame(pt.Ping4(to))},
		"ARP requests":         {pt.Frame(pt.ARPRequest(to))},
		"datagrams for echo":   {pt.Frame(pt.UDP4(echo))},
		"datagrams for nobody": {pt.Frame(pt.UDP4(closed))},
		"TCP for nobody":       {pt.Frame(pt.TCP4(closed))},
		"SYNs":                 syns,
	}
}

var lossOf = regexp.MustCompile(`([0-9.]+)% packet loss`)

// TestFloodLeavesTheGatewayToOthers: while one container asks of the gateway what
// it can, another has its pings answered and its connection served.
func TestFloodLeavesTheGatewayToOthers(t *testing.T) {
	for name, frames := range floods() {
		t.Run(name, func(t *testing.T) {
			s := blue(2)
			s.Echo = true
			l := newKernelLab(t, Options{Workers: 2}, s)
			stop := l.flood(frames...)
			defer stop()
			// A busy machine may lose some once, a flood that starves others does it always.
			loss := l.pingLoss(2)
			if loss > 4 {
				loss = l.pingLoss(2)
			}
			if loss > 4 {
				t.Errorf("%v %% of a victim's pings are lost", loss)
			}
			if err := converseWith(t, kernel{l.ns[2]}, 100); err != nil {
				t.Errorf("a victim's connection: %v", err)
			}
		})
	}
}

// pingLoss is the percentage of pings of container i that the gateway leaves
// unanswered.
func (l *kernelLab) pingLoss(i int) float64 {
	l.t.Helper()
	out := l.run(i, "ping", "-q", "-n", "-i", "0.01", "-c", "60", "-W", "2", "10.44.0.1")
	m := lossOf.FindStringSubmatch(out)
	if m == nil {
		l.t.Fatalf("ping says\n%s", out)
	}
	loss, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		l.t.Fatal(err)
	}
	return loss
}

// converseWith has some exchanges with the gateway's echo over one connection.
func converseWith(t *testing.T, from dialler, exchanges int) error {
	t.Helper()
	c, err := from.DialContext(within(t), "tcp", "10.44.0.1:7")
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	want, got := pt.Bytes(1000), make([]byte, 1000)
	for i := range exchanges {
		if _, err := c.Write(want); err != nil {
			return fmt.Errorf("exchange %d: %w", i, err)
		}
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("exchange %d: %w", i, err)
		}
	}
	return nil
}
