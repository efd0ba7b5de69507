// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/netstack"
	"sluice/packet"
)

// wait bounds everything that a test waits for.
const wait = 30 * time.Second

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making namespaces and mounts needs root")
	}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	t.Cleanup(cancel)
	return ctx
}

// starts a dataplane that is gone when the test is.
func starts(t *testing.T, c StartConfig) *Client {
	t.Helper()
	needRoot(t)
	n, err := Start(soon(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(t, n) })
	return n
}

// kill ends the process and waits for the client to end.
func kill(t *testing.T, c *Client) {
	t.Helper()
	select {
	case <-c.proc.gone:
	default:
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
	}
	c.Close()
}

// listening is a config with a control path.
func listening(t *testing.T) StartConfig {
	t.Helper()
	// Not t.TempDir: its name may be longer than a socket's path can be.
	dir, err := os.MkdirTemp("", "slt-dp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return StartConfig{Listen: filepath.Join(dir, "dataplane.sock")}
}

// cable is a port whose container is the test: a socket pair in the place of a
// veth.
type cable struct {
	index     uint16
	port      *os.File // the dataplane's end
	container int      // the test's end, with a receive timeout
}

func plug(t *testing.T, index uint16) *cable {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{index: index, port: os.NewFile(uintptr(pair[0]), fmt.Sprint("port", index)), container: pair[1]}
	t.Cleanup(func() {
		c.port.Close()
		unix.Close(c.container)
	})
	if err := unix.SetNonblock(pair[0], true); err != nil {
		t.Fatal(err)
	}
	tv := unix.NsecToTimeval(int64(wait))
	if err := unix.SetsockoptTimeval(c.container, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	return c
}

func plugAll(t *testing.T, n int) []*cable {
	t.Helper()
	var all []*cable
	for i := range n {
		all = append(all, plug(t, uint16(i+1)))
	}
	return all
}

func mac(index uint16) packet.MAC {
	return packet.MAC{2, 0, 0, 0, byte(index >> 8), byte(index)}
}

// send sends a frame with the text to another container.
func (c *cable) send(t *testing.T, to uint16, text string) {
	t.Helper()
	if _, err := unix.Write(c.container, frame(c.index, to, text)); err != nil {
		t.Fatal(err)
	}
}

// frame is a frame of a private EtherType behind its virtio-net header.
func frame(from, to uint16, text string) []byte {
	src, dst := mac(from), mac(to)
	b := make([]byte, packet.VnetLen)
	b = append(append(b, dst[:]...), src[:]...)
	b = binary.BigEndian.AppendUint16(b, 0x88b5) // IEEE 802 local experimental
	return append(b, text...)
}

// expect reads the next frame and compares it.
func (c *cable) expect(t *testing.T, from uint16, text string) {
	t.Helper()
	b := make([]byte, 2048)
	n, err := c.read(b)
	if err != nil {
		t.Fatalf("port %d waits for %q: %v", c.index, text, err)
	}
	want := frame(from, c.index, text)
	if string(b[packet.VnetLen:n]) != string(want[packet.VnetLen:]) {
		t.Fatalf("port %d got %q, want %q", c.index, b[packet.VnetLen:n], want[packet.VnetLen:])
	}
}

// read waits for the next frame. A signal of the runtime ends a read that has a time-out,
// which starts again then.
func (c *cable) read(b []byte) (n int, err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		n, err = unix.Read(c.container, b)
	}
	return n, err
}

// bridgeIndex is the local port's in all snapshots here.
const bridgeIndex = 60000

// snapshot is one namespace with the cables as its ports.
func snapshot(generation uint64, cables ...*cable) *netstack.Snapshot {
	ns := netstack.NetworkSpec{
		Name:      "blue",
		Bridge:    netstack.BridgeSpec{Index: bridgeIndex, MAC: mac(bridgeIndex), MTU: 1500},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.44.0.1/16"), netip.MustParsePrefix("fd44::1/64")},
		Echo:      true,
	}
	for _, c := range cables {
		ns.Ports = append(ns.Ports, netstack.PortSpec{
			Index: c.index, Name: fmt.Sprint("port", c.index), MAC: mac(c.index), MTU: 1500, Offload: true,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 44, byte(c.index>>8) + 1, byte(c.index)})},
		})
	}
	return &netstack.Snapshot{Generation: generation, Namespaces: []netstack.NamespaceSpec{{Name: "blue", Networks: []netstack.NetworkSpec{ns}}}}
}

func filesOf(cables ...*cable) map[uint16]*os.File {
	files := make(map[uint16]*os.File)
	for _, c := range cables {
		files[c.index] = c.port
	}
	return files
}

// applies applies a snapshot of the cables, all of them new.
func applies(t *testing.T, c *Client, generation uint64, cables ...*cable) {
	t.Helper()
	if err := c.Apply(soon(t), snapshot(generation, cables...), filesOf(cables...)); err != nil {
		t.Fatal(err)
	}
}

// talk shows that frames pass in both directions.
func talk(t *testing.T, a, b *cable, text string) {
	t.Helper()
	a.send(t, b.index, text+" there")
	b.expect(t, a.index, text+" there")
	b.send(t, a.index, text+" and back")
	a.expect(t, b.index, text+" and back")
}

// await waits for what has no event to wait for.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// fdsOf is the number of open fds of a process.
func fdsOf(t *testing.T, pid int) int {
	t.Helper()
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// leaksNoFD fails the test if it ends with more fds than it has now.
func leaksNoFD(t *testing.T) {
	t.Helper()
	r, w, err := os.Pipe() // the first file that waits opens the runtime's poller, which stays
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	before := fdsOf(t, os.Getpid())
	t.Cleanup(func() {
		await(t, "fds are closed", func() bool { return fdsOf(t, os.Getpid()) <= before })
	})
}

func sameFile(t *testing.T, a, b *os.File) bool {
	t.Helper()
	var sa, sb unix.Stat_t
	for f, st := range map[*os.File]*unix.Stat_t{a: &sa, b: &sb} {
		fd, err := fdOf(f)
		if err == nil {
			err = unix.Fstat(fd, st)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino
}
