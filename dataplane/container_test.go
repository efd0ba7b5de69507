// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"sluice/netstack"
	kt "sluice/test/kerneltest"
	"sluice/trace"
	"sluice/veth"
)

// container is a network namespace whose eth0 is a port:
//
//	[eth0]===slt-dp-p1 \
//	                    }  slt-dp-host; the dataplane has a socket on each
//	[eth0]===slt-dp-p2 /
type container struct {
	ns   netns.NsHandle
	addr netip.Addr
	cable
}

func containers(t *testing.T, n int) []*container {
	t.Helper()
	needRoot(t)
	path := filepath.Join(t.TempDir(), "slt-dp-host")
	host, err := veth.CreateNetNS(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		host.Close()
		if err := veth.DeleteNetNS(path); err != nil {
			t.Error(err)
		}
	})
	var all []*container
	for i := range n {
		all = append(all, attach(t, host, uint16(i+1)))
	}
	return all
}

func attach(t *testing.T, host netns.NsHandle, index uint16) *container {
	t.Helper()
	c := &container{ns: kt.NewNS(t), addr: netip.AddrFrom4([4]byte{10, 44, 1, byte(index)})}
	name := fmt.Sprint("slt-dp-p", index)
	err := veth.CreatePair(veth.PairConfig{
		HostName: name, HostNS: host, Name: "eth0", NS: c.ns, MAC: mac(index), MTU: 1500,
		Addresses: []netip.Prefix{netip.PrefixFrom(c.addr, 16)},
	})
	if err != nil {
		t.Fatal(err)
	}
	port, err := veth.OpenSocket(host, name, veth.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	c.cable = cable{index: index, port: port}
	return c
}

func (c *container) dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	var nc net.Conn
	err := veth.Do(c.ns, func() (err error) {
		nc, err = net.DialTimeout("tcp", addr, wait)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(3 * wait)); err != nil {
		t.Fatal(err)
	}
	return nc
}

// echoes sends back what comes by one connection to the container, until the test
// ends.
func (c *container) echoes(t *testing.T) string {
	t.Helper()
	var l net.Listener
	err := veth.Do(c.ns, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(c.addr, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done, accepted := make(chan struct{}), make(chan net.Conn, 1)
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		accepted <- nc
		io.Copy(nc, nc)
	}()
	t.Cleanup(func() {
		l.Close()
		select {
		case nc := <-accepted:
			nc.Close()
		default:
		}
		<-done
	})
	return l.Addr().String()
}

// roundTrip sends data and compares what comes back. Halfway it calls disturb.
func roundTrip(t *testing.T, nc net.Conn, data []byte, disturb func()) {
	t.Helper()
	go func() {
		nc.Write(data[:len(data)/2])
		disturb()
		nc.Write(data[len(data)/2:])
	}()
	sum := sha256.New()
	if _, err := io.CopyN(sum, nc, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("other bytes came back")
	}
}

// TestContainersTalkThroughTheSandbox takes the whole path with the system calls
// that are left: packet sockets, offload frames, the host stack.
func TestContainersTalkThroughTheSandbox(t *testing.T) {
	all := containers(t, 2)
	counters, err := trace.CreateCounters(filepath.Join(t.TempDir(), "counters"), 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	defer counters.Close()
	cfg := StartConfig{Counters: counters}
	c := starts(t, cfg)
	apply := func(c *Client) error {
		return c.Apply(soon(t), withPorts(all), filesOf(&all[0].cable, &all[1].cable))
	}
	if err := apply(c); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 8<<20)
	rand.Read(data)
	calm := func() {}
	roundTrip(t, all[0].dial(t, "10.44.0.1:7"), data[:1<<20], calm) // the gateway
	roundTrip(t, all[0].dial(t, all[1].echoes(t)), data, calm)

	// A connection lives on while the process dies under it.
	roundTrip(t, all[0].dial(t, all[1].echoes(t)), data, func() {
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		next, err := Start(soon(t), cfg)
		if err == nil {
			t.Cleanup(func() { kill(t, next) })
			err = apply(next)
		}
		if err != nil {
			t.Error(err)
		}
	})
	m, err := trace.MapCounters(counters)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if s := m.Port(1).Snapshot(); s.RxBytes < 3*uint64(len(data))/2 {
		t.Errorf("counters of port 1: %+v", s)
	}
}

func withPorts(all []*container) *netstack.Snapshot {
	var cables []*cable
	for _, c := range all {
		cables = append(cables, &c.cable)
	}
	s := snapshot(1, cables...)
	for i, c := range all {
		s.Namespaces[0].Networks[0].Ports[i].Addresses = []netip.Addr{c.addr}
	}
	return s
}

// TestPortDownOfARealPort takes a container's namespace, and with it the pair, away.
func TestPortDownOfARealPort(t *testing.T) {
	all := containers(t, 1)
	c := starts(t, StartConfig{})
	if err := c.Apply(soon(t), withPorts(all), filesOf(&all[0].cable)); err != nil {
		t.Fatal(err)
	}
	if err := veth.DeletePairs(all[0].ns, "eth0"); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case e := <-c.Events():
			if e.Kind == EventPortDown && e.Port == 1 {
				return
			}
		case <-time.After(wait):
			t.Fatal("no event came")
		}
	}
}
