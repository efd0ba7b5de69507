// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/packet"
	kt "sluice/test/kerneltest"
	"sluice/trace"
	"sluice/veth"
)

// isOurs tells the frames of ethernet() from what the kernel sends by itself.
func isOurs(f *packet.Frame) bool {
	b := f.Bytes()
	return len(b) >= packet.EthernetLen && b[12] == 0x88 && b[13] == 0xb5
}

func TestFramesBothWays(t *testing.T) {
	c := attach(t, kt.NewNS(t), 1, func(c *veth.PairConfig) { c.MTU = veth.MaxMTU })
	inside := int(c.rawSocket(t).Fd())
	b := newBatch(t, 4)
	for _, way := range []struct {
		name     string
		from, to int
	}{{"out of the container", inside, c.fd()}, {"into the container", c.fd(), inside}} {
		t.Run(way.name, func(t *testing.T) {
			for i, n := range []int{14, 15, 60, 1514, 9014, veth.MaxMTU + packet.EthernetLen} {
				want := ethernet(n, uint64(i))
				res := sendOne(t, way.from, frameOf(packet.Vnet{}, want))
				if res.Sent != 1 || res.Bytes != n {
					t.Fatalf("%d bytes: %+v", n, res)
				}
				if f := awaitFrame(t, way.to, b, isOurs); !bytes.Equal(f.Bytes(), want) || f.Vnet != (packet.Vnet{}) {
					t.Errorf("%d bytes: %d came, %+v", n, f.Len(), f.Vnet)
				}
			}
		})
	}
}

func TestPortDoesNotSeeWhatItSends(t *testing.T) {
	c := attach(t, kt.NewNS(t), 1, nil)
	inside := int(c.rawSocket(t).Fd())
	b := newBatch(t, 4)
	sendOne(t, c.fd(), frameOf(packet.Vnet{}, ethernet(60, 1)))
	sendOne(t, inside, frameOf(packet.Vnet{}, ethernet(61, 2)))
	// Frames keep their order: the first to come must be the container's.
	if f := awaitFrame(t, c.fd(), b, isOurs); f.Len() != 61 {
		t.Errorf("the port received a frame of %d bytes", f.Len())
	}
}

func TestPortSeesOnlyItsInterface(t *testing.T) {
	host := kt.NewNS(t)
	quiet, busy := attach(t, host, 1, nil), attach(t, host, 2, nil)
	inside := int(busy.rawSocket(t).Fd())
	stop, done := make(chan struct{}), make(chan struct{})
	s := newSender(t, 8)
	go func() {
		defer close(done)
		var res veth.SendResult
		f := frameOf(packet.Vnet{}, ethernet(60, 1))
		for {
			select {
			case <-stop:
				return
			default:
				s.Append(f)
				s.Flush(inside, &res)
			}
		}
	}()
	b := newBatch(t, 64)
	for range 50 {
		f, err := veth.OpenSocket(host, quiet.cfg.HostName, veth.SocketOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n, _ := b.Recv(int(f.Fd()), 64)
		for i := range n {
			if isOurs(&b.Frames[i]) {
				t.Error("a frame of another interface")
			}
		}
		f.Close()
	}
	close(stop)
	<-done
}

func TestOpenSocketRefuses(t *testing.T) {
	host := kt.NewNS(t)
	if _, err := veth.OpenSocket(host, "slt-none", veth.SocketOptions{}); !errors.Is(err, veth.ErrNotExist) {
		t.Errorf("an unknown interface: %v", err)
	}
	if _, err := veth.OpenSocket(host, "a-name-that-is-too-long", veth.SocketOptions{}); err == nil {
		t.Error("a name that is too long")
	}
}

func TestPortIsNonBlocking(t *testing.T) {
	c := attach(t, kt.NewNS(t), 1, nil)
	flags, err := unix.FcntlInt(c.port.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

func TestAnnounce(t *testing.T) {
	c := attach(t, kt.NewNS(t), 1, nil)
	b := newBatch(t, 64)
	if err := veth.Announce(c.ns, "eth0", c.cfg.MAC, []netip.Addr{c.ip4, c.ip6}); err != nil {
		t.Fatal(err)
	}
	// What the kernel sends of its own accord (MLD, router solicitation) is
	// neither ARP nor an advertisement.
	announced := func(f *packet.Frame) bool {
		if f.View.Parse(f.Bytes()) != packet.FaultNone {
			return false
		}
		v := &f.View
		return v.EtherType == packet.EtherTypeARP || v.Proto == packet.ProtoICMPv6 && v.SrcPort>>8 == 136
	}
	var got [][]byte
	for range 2 {
		got = append(got, slices.Clone(awaitFrame(t, c.fd(), b, announced).Bytes()))
	}
	for n := -1; n != 0; {
		n, _ = b.Recv(c.fd(), 64)
		for i := range n {
			if announced(&b.Frames[i]) {
				got = append(got, slices.Clone(b.Frames[i].Bytes()))
			}
		}
	}
	want := [][]byte{packet.GratuitousARP(nil, c.cfg.MAC, c.ip4), packet.UnsolicitedNA(nil, c.cfg.MAC, c.ip6)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
	if err := veth.Announce(c.ns, "eth9", c.cfg.MAC, nil); !errors.Is(err, veth.ErrNotExist) {
		t.Errorf("an unknown interface: %v", err)
	}
}

func TestLostFramesAreCounted(t *testing.T) {
	host := kt.NewNS(t)
	c := attach(t, host, 1, nil)
	frame := func() *packet.Frame { return frameOf(packet.Vnet{}, ethernet(60, 1)) }
	reasonOf := func(f *packet.Frame) trace.Reason {
		res := sendOne(t, c.fd(), f)
		for r, n := range res.Dropped {
			if n != 0 {
				return trace.Reason(r)
			}
		}
		return trace.None
	}
	expect := func(what string, got, want trace.Reason) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	expect("a good frame", reasonOf(frame()), trace.None)
	expect("a frame above the MTU", reasonOf(frameOf(packet.Vnet{}, ethernet(3000, 1))), trace.TooBig)
	lie := packet.Vnet{Flags: packet.FlagNeedsCsum, CsumStart: 5000, CsumOffset: 16}
	expect("a checksum outside the frame", reasonOf(frameOf(lie, ethernet(60, 1))), trace.TxError)
	expect("an unknown kind of offload", reasonOf(frameOf(packet.Vnet{GSOType: 77, GSOSize: 1}, ethernet(60, 1))), trace.TxError)

	kt.RunIn(t, c.ns, "ip", "link", "set", "eth0", "down")
	expect("the container's end is down", reasonOf(frame()), trace.TxNoBuffer)
	kt.RunIn(t, c.ns, "ip", "link", "set", "eth0", "up")
	expect("it is up again", reasonOf(frame()), trace.None)
	kt.RunIn(t, host, "ip", "link", "set", "slt-1", "down")
	expect("the host end is down", reasonOf(frame()), trace.TxDown)
}

func TestPortOfADeletedPair(t *testing.T) {
	host := kt.NewNS(t)
	c := attach(t, host, 1, nil)
	b := newBatch(t, 64)
	if err := veth.DeletePairs(host, c.cfg.HostName); err != nil {
		t.Fatal(err)
	}
	// What is queued comes after the news.
	errno := unix.Errno(0)
	for n := 1; n != 0 && errno == 0; {
		n, errno = b.Recv(c.fd(), 64)
	}
	if errno != unix.ENETDOWN {
		t.Errorf("Recv: %v", errno)
	}
	s := newSender(t, 4)
	for range 4 {
		s.Append(frameOf(packet.Vnet{}, ethernet(60, 1)))
	}
	var res veth.SendResult
	s.Flush(c.fd(), &res)
	if res.Lost != 4 || res.Dropped[trace.TxDown] != 4 {
		t.Errorf("Flush: %+v", res)
	}
	if _, _, err := veth.Stats(c.fd()); err != nil {
		t.Errorf("Stats: %v", err)
	}
}

func TestPortComesBackWithItsInterface(t *testing.T) {
	host := kt.NewNS(t)
	c := attach(t, host, 1, nil)
	inside := int(c.rawSocket(t).Fd())
	b := newBatch(t, 64)
	kt.RunIn(t, host, "ip", "link", "set", "slt-1", "down")
	for errno := unix.Errno(0); errno != unix.ENETDOWN; {
		if _, errno = b.Recv(c.fd(), 64); errno == 0 && !waitFor(c.fd(), time.Second) {
			t.Fatal("no ENETDOWN")
		}
	}
	kt.RunIn(t, host, "ip", "link", "set", "slt-1", "up")
	await(t, "the carrier", func() bool { return sendOne(t, inside, frameOf(packet.Vnet{}, ethernet(60, 1))).Sent == 1 })
	awaitFrame(t, c.fd(), b, isOurs)
}

func TestOverrunIsCounted(t *testing.T) {
	host := kt.NewNS(t)
	c := attach(t, host, 1, nil)
	small, err := veth.OpenSocket(host, c.cfg.HostName, veth.SocketOptions{RcvBuf: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	inside, s := int(c.rawSocket(t).Fd()), newSender(t, 64)
	sent := 0
	for range 10 {
		for range 64 {
			s.Append(frameOf(packet.Vnet{}, ethernet(1000, 1)))
		}
		var res veth.SendResult
		s.Flush(inside, &res)
		sent += res.Sent
	}
	arrived, dropped := 0, 0 // a reading resets them
	read := func() error {
		packets, drops, err := veth.Stats(int(small.Fd()))
		arrived += int(packets)
		dropped += int(drops)
		return err
	}
	await(t, "all frames to arrive", func() bool { return read() == nil && arrived >= sent })
	b, got := newBatch(t, 64), 0
	for n := -1; n != 0; got += n {
		n, _ = b.Recv(int(small.Fd()), 64)
	}
	if err := read(); err != nil { // the kernel may have sent one more meanwhile
		t.Fatal(err)
	}
	if dropped == 0 || got+dropped != arrived {
		t.Errorf("%d sent, %d received, %d dropped of %d", sent, got, dropped, arrived)
	}
	if _, _, err := veth.Stats(-1); err == nil {
		t.Error("statistics of no socket")
	}
}
