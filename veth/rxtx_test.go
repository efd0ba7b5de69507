// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/trace"
	"sluice/veth"
	"sluice/veth/vethtest"
)

// ethernet is a frame of n bytes from a to b with a payload that depends on seed.
func ethernet(n int, seed uint64) []byte {
	b := make([]byte, max(n, packet.EthernetLen))
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	copy(b, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}) // IEEE 802 local experimental
	return b
}

func TestRecvKeepsOrderBytesAndMetadata(t *testing.T) {
	w, b := vethtest.New(t), newBatch(t, 8)
	vnet := packet.Vnet{Flags: packet.FlagNeedsCsum, GSOType: packet.GSOTCP4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	sizes := []int{14, 60, 1514, 9014, packet.MaxFrame, 100}
	for i, n := range sizes {
		w.Inject(vnet, ethernet(n, uint64(i)))
	}
	// Three at a time: the ring is used again before it has been filled once.
	for i := 0; i < len(sizes); {
		n, errno := b.Recv(w.FD(), 3)
		if n == 0 || n > 3 || errno != 0 {
			t.Fatalf("Recv: %d, %v", n, errno)
		}
		for k := range n {
			f := &b.Frames[k]
			if !bytes.Equal(f.Bytes(), ethernet(sizes[i], uint64(i))) || f.Vnet != vnet {
				t.Errorf("frame %d: %d bytes, %+v", i, f.Len(), f.Vnet)
			}
			i++
		}
	}
	if n, errno := b.Recv(w.FD(), 8); n != 0 || errno != 0 {
		t.Errorf("an empty port: %d, %v", n, errno)
	}
}

func TestRecvMarksWhatItCannotHold(t *testing.T) {
	w, b := vethtest.New(t), newBatch(t, 8)
	w.Inject(packet.Vnet{}, ethernet(100, 1))
	w.Inject(packet.Vnet{}, ethernet(packet.BufLen, 2)) // more than the room after the headroom
	w.InjectRaw([]byte{1, 2, 3})                        // less than a vnet header
	w.Inject(packet.Vnet{}, nil)                        // no frame
	w.Inject(packet.Vnet{}, ethernet(101, 3))
	n, errno := b.Recv(w.FD(), 100)
	if n != 5 || errno != 0 || b.Truncated != 3 || b.Refused != 0 {
		t.Fatalf("Recv: %d, %v, %d truncated, %d refused", n, errno, b.Truncated, b.Refused)
	}
	var got []int
	for i := range n {
		got = append(got, b.Frames[i].Len())
	}
	if diff := cmp.Diff([]int{100, 0, 0, 0, 101}, got); diff != "" {
		t.Errorf("lengths (-want +got):\n%s", diff)
	}
	w.Inject(packet.Vnet{}, ethernet(60, 4))
	if n, _ := b.Recv(w.FD(), 1); n != 1 || b.Truncated != 0 {
		t.Errorf("the counts are of the last call only: %d, %d", n, b.Truncated)
	}
}

func TestRecvFromAClosedPeer(t *testing.T) {
	w, b := vethtest.New(t), newBatch(t, 4)
	w.Inject(packet.Vnet{}, ethernet(60, 1))
	w.Close()
	if n, errno := b.Recv(w.FD(), 4); n != 1 || errno != 0 {
		t.Errorf("what was sent before: %d, %v", n, errno)
	}
	if n, errno := b.Recv(w.FD(), 4); n != 0 || errno != unix.EPIPE {
		t.Errorf("the end: %d, %v", n, errno)
	}
	if n, errno := b.Recv(-1, 4); n != 0 || errno != unix.EBADF {
		t.Errorf("no port: %d, %v", n, errno)
	}
}

func TestRecvIsBoundedWhenTheKernelRefuses(t *testing.T) {
	// A stream socket without a peer answers EINVAL, as a port does for a frame
	// that no virtio-net header describes; but it never stops.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := newBatch(t, 4)
	if n, errno := b.Recv(fd, 4); n != 0 || errno != 0 || b.Refused != 4 {
		t.Errorf("%d, %v, %d refused", n, errno, b.Refused)
	}
}

func TestBatchSizesAreBroughtIntoRange(t *testing.T) {
	for _, tc := range []struct{ ask, want int }{{-1, 1}, {0, 1}, {64, 64}, {veth.MaxBatch + 1, veth.MaxBatch}} {
		if n := len(newBatch(t, tc.ask).Frames); n != tc.want {
			t.Errorf("NewBatch(%d) has %d frames", tc.ask, n)
		}
		s, f := newSender(t, tc.ask), frameOf(packet.Vnet{}, ethernet(60, 1))
		for s.Append(f) {
		}
		if s.Len() != tc.want {
			t.Errorf("NewSender(%d) takes %d frames", tc.ask, s.Len())
		}
	}
}

// TestBatchMemoryIsTouchedByNeed: a batch of 64 MB costs nearly nothing until
// frames come.
func TestBatchMemoryIsTouchedByNeed(t *testing.T) {
	before := residentPages(t)
	newBatch(t, veth.MaxBatch)
	if grown := (residentPages(t) - before) * os.Getpagesize(); grown > 8<<20 {
		t.Errorf("%d bytes resident", grown)
	}
}

// residentPages is the second word of proc_pid_statm(5).
func residentPages(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident
}

func TestSendKeepsOrderBytesAndMetadata(t *testing.T) {
	w, s := vethtest.New(t), newSender(t, 4)
	vnet := packet.Vnet{Flags: packet.FlagNeedsCsum, CsumStart: 34, CsumOffset: 6}
	total := 0
	for i := range 4 {
		n := 100 * (i + 1)
		total += n
		if !s.Append(frameOf(vnet, ethernet(n, uint64(i)))) {
			t.Fatal("Append")
		}
	}
	if s.Append(frameOf(vnet, ethernet(60, 9))) || s.Len() != 4 {
		t.Error("a full list took another frame")
	}
	var res veth.SendResult
	s.Flush(w.FD(), &res)
	if diff := cmp.Diff(veth.SendResult{Sent: 4, Bytes: total}, res); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	for i := range 4 {
		gotVnet, got, ok := w.Receive(patience)
		if !ok || gotVnet != vnet || !bytes.Equal(got, ethernet(100*(i+1), uint64(i))) {
			t.Errorf("frame %d: %v, %d bytes, %+v", i, ok, len(got), gotVnet)
		}
	}
	s.Flush(w.FD(), &res)
	if diff := cmp.Diff(veth.SendResult{}, res); diff != "" || s.Len() != 0 {
		t.Errorf("an empty list (-want +got):\n%s", diff)
	}
	if s.Append(frameOf(vnet, nil)) {
		t.Error("an empty frame was taken")
	}
}

// A frame may leave with another beginning than its own, between others that leave
// as they are.
func TestSendWithAnotherBeginning(t *testing.T) {
	w, s := vethtest.New(t), newSender(t, 3)
	vnet := packet.Vnet{Flags: packet.FlagNeedsCsum, CsumStart: 34, CsumOffset: 6}
	plain := ethernet(200, 1)
	f := frameOf(vnet, plain)
	head := make([]byte, packet.VnetLen, 32)
	packet.Vnet{}.Encode(head)
	head = append(head, "another beginning"...)
	var res veth.SendResult
	for range 2 { // the same places of the list, in another order
		s.Append(f)
		if !s.AppendWith(head, f, 12) || s.AppendWith(head, f, 200) || s.AppendWith(head[:9], f, 0) {
			t.Fatal("AppendWith")
		}
		s.Append(f)
		if s.AppendWith(head, f, 12) {
			t.Error("a full list took another frame")
		}
		s.Flush(w.FD(), &res)
		if want := 200 + 188 + 17 + 200; res.Sent != 3 || res.Bytes != want {
			t.Errorf("%d sent, %d bytes, want %d", res.Sent, res.Bytes, want)
		}
		for i, want := range [][]byte{plain, append([]byte("another beginning"), plain[12:]...), plain} {
			wantVnet := vnet
			if i == 1 {
				wantVnet = packet.Vnet{}
			}
			if got, b, ok := w.Receive(patience); !ok || got != wantVnet || !bytes.Equal(b, want) {
				t.Errorf("frame %d: %v, %d bytes, %+v", i, ok, len(b), got)
			}
		}
		s.Append(f)
		s.AppendWith(head, f, 12)
		s.Flush(-1, &res)
	}
}

func TestFlushCountsWhatIsLost(t *testing.T) {
	const frames = 32
	for _, tc := range []struct {
		name   string
		fd     func(t *testing.T, w *vethtest.Wire) (fd int)
		reason trace.Reason
		sent   bool // some frames go first
	}{
		{"the send buffer is full", func(t *testing.T, w *vethtest.Wire) int {
			t.Helper()
			if err := unix.SetsockoptInt(w.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10); err != nil {
				t.Fatal(err)
			}
			return w.FD()
		}, trace.TxFull, true},
		{"the other end is closed", func(_ *testing.T, w *vethtest.Wire) int { w.Close(); return w.FD() }, trace.TxDown, false},
		{"the fd is closed", func(*testing.T, *vethtest.Wire) int { return -1 }, trace.TxError, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, s := vethtest.New(t), newSender(t, frames)
			fd := tc.fd(t, w)
			for i := range frames {
				s.Append(frameOf(packet.Vnet{}, ethernet(4000, uint64(i))))
			}
			res := veth.SendResult{Sent: 99, Bytes: 99, Lost: 99}
			s.Flush(fd, &res)
			if (res.Sent > 0) != tc.sent || res.Lost == 0 || res.Sent+res.Lost != frames {
				t.Errorf("%d sent, %d lost", res.Sent, res.Lost)
			}
			if int(res.Dropped[tc.reason]) != res.Lost || res.Bytes != 4000*res.Sent {
				t.Errorf("%d bytes, %s %d", res.Bytes, tc.reason, res.Dropped[tc.reason])
			}
			if s.Len() != 0 {
				t.Error("the list is not empty")
			}
		})
	}
}

func TestFlushGoesOnAfterAFrameTooLarge(t *testing.T) {
	w, s := vethtest.New(t), newSender(t, 3)
	if err := unix.SetsockoptInt(w.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 32<<10); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{100, packet.MaxFrame, 200} {
		s.Append(frameOf(packet.Vnet{}, ethernet(n, 1)))
	}
	var res veth.SendResult
	s.Flush(w.FD(), &res)
	want := veth.SendResult{Sent: 2, Bytes: 300, Lost: 1}
	want.Dropped[trace.TooBig] = 1
	if diff := cmp.Diff(want, res); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func TestNoAllocationsPerFrame(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	const frames = 8 // fits net.unix.max_dgram_qlen
	b, s := newBatch(t, frames), newSender(t, frames)
	f, head := frameOf(packet.Vnet{}, ethernet(1514, 1)), make([]byte, packet.VnetLen+12)
	var res veth.SendResult
	for _, tc := range []struct {
		name string
		turn func() bool
	}{
		{"send and receive", func() bool {
			for range frames / 2 {
				s.Append(f)
				s.AppendWith(head, f, 12)
			}
			s.Flush(fds[0], &res)
			n, _ := b.Recv(fds[1], frames)
			return n == frames && res.Sent == frames
		}},
		{"nothing to receive", func() bool { n, errno := b.Recv(fds[1], frames); return n == 0 && errno == 0 }},
		{"nowhere to send", func() bool { s.Append(f); s.Flush(-1, &res); return res.Lost == 1 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			allocs := testing.AllocsPerRun(200, func() {
				if !tc.turn() {
					t.Fatal("it did not work")
				}
			})
			if allocs != 0 {
				t.Errorf("%v allocations", allocs)
			}
		})
	}
}

// BenchmarkTurn is a batch of MTU-size frames out of one port and into another.
func BenchmarkTurn(b *testing.B) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	const frames = 8
	batch, s := newBatch(b, frames), newSender(b, frames)
	f := frameOf(packet.Vnet{}, ethernet(1514, 1))
	var res veth.SendResult
	b.ReportAllocs()
	for b.Loop() {
		for range frames {
			s.Append(f)
		}
		s.Flush(fds[0], &res)
		batch.Recv(fds[1], frames)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*frames), "ns/frame")
}
