// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/packet/packettest"
	kt "sluice/test/kerneltest"
	"sluice/veth"
)

// monitor opens a tap device as the monitor of a virtual machine does.
func monitor(t *testing.T, ns netns.NsHandle, name string) *os.File {
	t.Helper()
	fd := -1
	err := veth.Do(ns, func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	if err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

func newTap(t *testing.T, ns netns.NsHandle) veth.TapConfig {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("no tap devices here")
	}
	c := veth.TapConfig{Name: "vm0", NS: ns, MTU: 1500, Owner: 1234, Group: -1, Alias: "id"}
	if err := veth.CreateTap(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTapIsAPort: frames with their offload metadata go from the monitor to the port
// and back, and the kernel's stack in between neither hears nor says anything.
func TestTapIsAPort(t *testing.T) {
	ns := kt.NewNS(t)
	newTap(t, ns)
	port, err := veth.OpenSocket(ns, "vm0", veth.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	vm := monitor(t, ns, "vm0")
	kt.RunIn(t, ns, "ip", "addr", "add", "10.9.9.1/24", "dev", "vm0") // somebody is careless
	var heard net.PacketConn
	if err := veth.Do(ns, func() (err error) {
		heard, err = net.ListenPacket("udp4", ":67")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer heard.Close()

	frame := packettest.UDP4(packettest.Packet{
		SrcMAC: packettest.HW("02:00:00:00:00:09"), DstMAC: packettest.HW("ff:ff:ff:ff:ff:ff"),
		Src: packettest.IP("0.0.0.0"), Dst: packettest.IP("255.255.255.255"), SrcPort: 68, DstPort: 67, Payload: []byte("discover"),
	})
	wire := append(make([]byte, packet.VnetLen), frame...)
	if _, err := vm.Write(wire); err != nil {
		t.Fatal(err)
	}
	b, err := veth.NewBatch(4)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	n := 0
	for end := time.Now().Add(patience); n == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		n, _ = b.Recv(int(port.Fd()), 4)
	}
	if n != 1 || string(b.Frames[0].Bytes()) != string(frame) {
		t.Fatalf("%d frames at the port", n)
	}
	s, err := veth.NewSender(4)
	if err != nil {
		t.Fatal(err)
	}
	s.Append(&b.Frames[0])
	var res veth.SendResult
	if s.Flush(int(port.Fd()), &res); res.Sent != 1 {
		t.Fatalf("%+v", res)
	}
	in := make([]byte, 4096)
	vm.SetReadDeadline(time.Now().Add(patience))
	if n, err := vm.Read(in); err != nil || string(in[packet.VnetLen:n]) != string(frame) {
		t.Errorf("the monitor reads %d bytes, %v", n, err)
	}
	heard.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, _, err := heard.ReadFrom(in); err == nil {
		t.Errorf("the stack between heard %d bytes of the guest", n)
	}
	// What the stack sends is not for the guest.
	veth.Do(ns, func() error {
		c, err := net.Dial("udp4", "10.9.9.255:9")
		if err == nil {
			_, _ = c.Write([]byte("hello"))
			c.Close()
		}
		return nil
	})
	vm.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := vm.Read(in); err == nil {
		t.Errorf("the guest heard %d bytes of the stack between", n)
	}
}

func TestTapOutlivesWhoHasItOpen(t *testing.T) {
	ns := kt.NewNS(t)
	c := newTap(t, ns)
	first, err := veth.FindTap(ns, "vm0")
	if err != nil || first.Alias != "id" {
		t.Fatalf("%+v, %v", first, err)
	}
	monitor(t, ns, "vm0").Close()
	monitor(t, ns, "vm0").Close() // of the next monitor
	if again, err := veth.FindTap(ns, "vm0"); err != nil || again != first {
		t.Errorf("%+v, %v", again, err)
	}
	if err := veth.CreateTap(c); !errors.Is(err, veth.ErrExist) {
		t.Errorf("a second of that name: %v", err)
	}
	if out := kt.RunIn(t, ns, "ip", "-d", "link", "show", "vm0"); !strings.Contains(out, "persist on user 1234") || !strings.Contains(out, "NOARP") {
		t.Errorf("%s", out)
	}
	if err := veth.DeleteTap(ns, "vm0", "another"); err != nil {
		t.Error(err)
	}
	if _, err := veth.FindTap(ns, "vm0"); err != nil {
		t.Errorf("another's tap was removed: %v", err)
	}
	for range 2 {
		if err := veth.DeleteTap(ns, "vm0", "id"); err != nil {
			t.Error(err)
		}
	}
	if _, err := veth.FindTap(ns, "vm0"); !errors.Is(err, veth.ErrNotExist) {
		t.Errorf("after its removal: %v", err)
	}
	kt.RunIn(t, ns, "ip", "link", "add", "vm0", "type", "bridge")
	if err := veth.CreateTap(c); !errors.Is(err, veth.ErrExist) {
		t.Errorf("with the name of another kind: %v", err)
	}
	c.Name = "a/b"
	if err := veth.CreateTap(c); !errors.Is(err, veth.ErrConfig) {
		t.Errorf("%v", err)
	}
}
