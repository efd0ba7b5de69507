// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/packet/packettest"
)

// datagrams are the numbers given, one after the other, size bytes each.
func datagrams(size int, numbers ...uint64) []byte {
	p := newPayload()
	b := make([]byte, size*len(numbers))
	for i, n := range numbers {
		p.fill(b[i*size:(i+1)*size], 7, n)
	}
	return b
}

func TestSessionCounts(t *testing.T) {
	const size = 100
	flipped := datagrams(size, 1)
	flipped[50] ^= 1
	tests := map[string]struct {
		reads [][]byte
		want  session
	}{
		"one by one":   {[][]byte{datagrams(size, 1), datagrams(size, 2)}, session{Received: 2, Bytes: 200}},
		"merged":       {[][]byte{datagrams(size, 1, 2, 3)}, session{Received: 3, Merged: 1, Bytes: 300}},
		"a short last": {[][]byte{append(datagrams(size, 1), datagrams(30, 2)...)}, session{Received: 2, Merged: 1, Bytes: 130}},
		"out of turn":  {[][]byte{datagrams(size, 2), datagrams(size, 1)}, session{Received: 2, Reordered: 1, Bytes: 200}},
		"twice":        {[][]byte{datagrams(size, 1, 1)}, session{Received: 2, Reordered: 1, Merged: 1, Bytes: 200}},
		"one bit":      {[][]byte{flipped}, session{Bad: 1}},
		"cut off":      {[][]byte{datagrams(size, 1)[:90]}, session{Bad: 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var s, back session
			for _, b := range tt.reads {
				s.read(b, size)
			}
			if !back.readAck(s.ack(7), 7) || back.readAck(s.ack(8), 7) {
				t.Error("the acknowledgement does not survive")
			}
			if diff := cmp.Diff(tt.want, back, cmpopts.IgnoreUnexported(session{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// auxdata is the control message that tells of a tag.
func auxdata(status uint32, t vlanTag) []byte {
	data := binary.NativeEndian.AppendUint32(nil, status)
	data = append(data, make([]byte, 12)...)
	data = binary.NativeEndian.AppendUint16(data, t.tci)
	data = binary.NativeEndian.AppendUint16(data, t.tpid)
	msg := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(msg, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(msg[8:], unix.SOL_PACKET)
	binary.NativeEndian.PutUint32(msg[12:], unix.PACKET_AUXDATA)
	copy(msg[unix.CmsgLen(0):], data)
	return msg
}

func TestUntag(t *testing.T) {
	bare := packettest.TCP4(packettest.Packet{})
	inner := append(append(append([]byte(nil), bare[:12]...), 0x81, 0, 0x20, 5), bare[12:]...)
	valid := uint32(unix.TP_STATUS_VLAN_VALID | unix.TP_STATUS_VLAN_TPID_VALID)
	one := subInterface{tags: []vlanTag{{tpidQ, 5}}}
	two := subInterface{tags: []vlanTag{{tpidAD, 9}, {tpidQ, 5}}}
	tests := map[string]struct {
		v     subInterface
		frame []byte
		oob   []byte
		ok    bool
	}{
		"its tag":             {one, bare, auxdata(valid, vlanTag{tpidQ, 5}), true},
		"its tag, priority 3": {one, bare, auxdata(valid, vlanTag{tpidQ, 3<<13 | 5}), true},
		"another identifier":  {one, bare, auxdata(valid, vlanTag{tpidQ, 6}), false},
		"another kind":        {one, bare, auxdata(valid, vlanTag{tpidAD, 5}), false},
		"no tag":              {one, bare, auxdata(0, vlanTag{}), false},
		"both tags":           {two, inner, auxdata(valid, vlanTag{tpidAD, 9}), true},
		"outer only":          {two, bare, auxdata(valid, vlanTag{tpidAD, 9}), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := tt.v.untag(append([]byte(nil), tt.frame...), tt.oob)
			if ok != tt.ok || ok && !cmp.Equal(got, bare) {
				t.Errorf("ok is %v, want %v; %x", ok, tt.ok, got)
			}
		})
	}
}

// TestJudge shows the capture frames that are right, and frames that are not.
func TestJudge(t *testing.T) {
	tests := map[string]struct {
		watch watcher
		frame []byte
		harm  func(f *packet.Frame)
		bad   bool
	}{
		"a right frame":  {frame: packettest.TCP4(packettest.Packet{Payload: []byte("hello")})},
		"IPv6":           {frame: packettest.UDP6(packettest.Packet{Payload: []byte("hello")})},
		"a payload bit":  {frame: packettest.TCP4(packettest.Packet{Payload: []byte("hello")}), harm: flip(-1), bad: true},
		"an address bit": {frame: packettest.TCP4(packettest.Packet{}), harm: flip(30), bad: true},
		"cut off":        {frame: packettest.TCP4(packettest.Packet{})[:40], bad: true},
		"too large":      {watch: watcher{largest: 100}, frame: packettest.UDP4(packettest.Packet{Payload: make([]byte, 200)}), bad: true},
		"partial, not partial": {frame: packettest.TCP4(packettest.Packet{}), harm: func(f *packet.Frame) {
			f.Vnet = packet.Vnet{Flags: packet.FlagNeedsCsum, CsumStart: 34, CsumOffset: 16}
		}, bad: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var f packet.Frame
			f.SetBuf(make([]byte, packet.BufLen))
			f.Reset(packet.Headroom, copy(f.Buf()[packet.Headroom:], tt.frame))
			if tt.harm != nil {
				tt.harm(&f)
			}
			tt.watch.look(&f)
			if r := tt.watch.report; (r.Bad > 0) != tt.bad || r.Frames != 1 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// flip changes a bit of a byte, counted from the end if negative.
func flip(at int) func(f *packet.Frame) {
	return func(f *packet.Frame) {
		b := f.Bytes()
		b[(at+len(b))%len(b)] ^= 1
	}
}

// TestWaitGoesOnAfterSignals: the runtime's own signals end reads that have a time-out;
// nothing is lost by that.
func TestWaitGoesOnAfterSignals(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := setTimeout(pair[0], 5000); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, thread := datagramSender{fd: pair[0], sent: 9}, unix.Gettid()
	go func() {
		for range 5 {
			time.Sleep(10 * time.Millisecond)
			_ = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)
		}
		_, _ = unix.Write(pair[1], (&session{Received: 3}).ack(0))
	}()
	if ok := s.wait(); !ok || s.lost != 0 || s.acked.Received != 3 {
		t.Errorf("wait is %t: %d lost, %d received; want true, 0 and 3", ok, s.lost, s.acked.Received)
	}
}
