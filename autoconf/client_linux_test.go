// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/packet"
	kt "sluice/test/kerneltest"
)

// container is a network namespace with one interface, and a Server at the other
// end of it:
//
//	eth0 ---- slt-gw
//
// Programs that are run in it see an /etc/resolv.conf, a /run and a /var/lib of
// their own.
type container struct {
	t      *testing.T
	server *Server
	client Client
	end    *kt.End
	dir    string

	mu    sync.Mutex
	heard []Verdict
}

const clientMAC = "02:00:00:00:00:11"

// newContainer makes the namespace and serves it until the end of the test.
func newContainer(t *testing.T, c Config, addrs ...string) *container {
	t.Helper()
	kt.Enter(t)
	k := &container{t: t, server: New(1), dir: t.TempDir()}
	k.client = Client{MAC: mac(clientMAC), Name: "red"}
	for _, a := range addrs {
		k.client.Addrs = append(k.client.Addrs, netip.MustParseAddr(a))
	}
	change, err := k.server.Prepare(testLink(), c)
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	k.connect()
	k.serve()
	return k
}

// connect makes the pair.
func (k *container) connect() {
	k.t.Helper()
	kt.IP(k.t, "link set lo up", "link add eth0 address "+clientMAC+" type veth peer name slt-gw")
	kt.Sysctl(k.t, "ipv6/conf/slt-gw/disable_ipv6=1",
		"ipv6/conf/eth0/accept_dad=0", // no second's wait, nobody else is there
		"ipv6/conf/eth0/accept_ra_rt_info_max_plen=128")
	kt.IP(k.t, "link set slt-gw arp off up")
	k.end = kt.Open(k.t, "slt-gw")
	k.end.Set(unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	kt.IP(k.t, "link set eth0 up")
	await(k.t, "link-local address", func() bool {
		return strings.Contains(kt.Run(k.t, "ip", "-6", "addr", "show", "dev", "eth0"), clientLocal)
	})
}

// serve answers what comes, and ticks, until the end of the test.
func (k *container) serve() {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		start, ticked := time.Now(), uint32(0)
		for {
			select {
			case <-stop:
				return
			default:
			}
			now := uint32(time.Since(start)/time.Second) + 1
			if now != ticked {
				ticked = now
				k.send(k.server.Tick(nil, now))
			}
			k.receive(now)
		}
	}()
	k.t.Cleanup(func() {
		close(stop)
		<-done
	})
}

func (k *container) receive(now uint32) {
	buf := make([]byte, packet.BufLen)
	k.end.Wait(100 * time.Millisecond)
	n, err := unix.Read(k.end.FD, buf[packet.Headroom-packet.VnetLen:])
	if err != nil {
		return // nothing came in time
	}
	f := &packet.Frame{}
	f.SetBuf(buf)
	f.Received(n)
	if f.View.Parse(f.Bytes()) != packet.FaultNone || !f.CheckVnet() {
		return
	}
	answer, verdict := k.server.Input(nil, f, &k.client, now)
	if verdict != Pass {
		k.mu.Lock()
		k.heard = append(k.heard, verdict)
		k.mu.Unlock()
	}
	if verdict == Pass {
		answer = k.resolve(f)
	}
	k.send(answer)
}

// resolve is what the host stack does: it says where the gateway is.
func (k *container) resolve(f *packet.Frame) []byte {
	to := f.View.DstAddr(f.Bytes())
	if m, ok := f.View.ND(f.Bytes()); ok && m.Type == packet.NDNeighbourSol {
		to = m.Target
	}
	sv := k.server.current.Load()
	if !sv.link.owns(to) {
		return nil
	}
	b := packet.ARPReply(nil, f, sv.link.mac)
	return packet.NeighbourAdvert(b, f, sv.link.mac, true)
}

func (k *container) send(frame []byte) {
	if len(frame) == 0 {
		return
	}
	_, err := unix.Write(k.end.FD, append(make([]byte, packet.VnetLen), frame...))
	if err != nil && !errors.Is(err, unix.ENETDOWN) {
		k.t.Errorf("send: %v", err)
	}
}

// refusals are the verdicts that no real client should meet.
func (k *container) refusals() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, v := range k.heard {
		if v != Done {
			n++
		}
	}
	return n
}

// alone is a command with files of its own where clients write, in k.dir. It has
// a process namespace of its own too, so that what it starts ends with it; and it
// ends with this thread.
func (k *container) alone(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", fmt.Sprintf(`
		touch %[1]s/resolv.conf
		mount --bind %[1]s/resolv.conf /etc/resolv.conf
		mount -t tmpfs slt /run
		mount -t tmpfs slt /var/lib
		mkdir -p /var/lib/dhcp /var/lib/dhcpcd
		cd %[1]s
		touch leases
		%[2]s
		exit 0`, k.dir, line)) // no exec: a client that changes its user would outlive --kill-child
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// runAlone runs a client to its end.
func (k *container) runAlone(line string) string {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 60*time.Second)
	defer cancel()
	out, err := k.alone(ctx, line).CombinedOutput()
	if err != nil {
		k.t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// startAlone runs a client until the end of the test, or until stop.
func (k *container) startAlone(line string) (stop func()) {
	k.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log, err := os.Create(filepath.Join(k.dir, "log"))
	if err != nil {
		k.t.Fatal(err)
	}
	cmd := k.alone(ctx, line)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		_ = log.Close()
		if k.t.Failed() {
			k.t.Logf("%s:\n%s", line, k.file("log"))
		}
	})
	k.t.Cleanup(stop)
	return stop
}

// file is what is in a file of k.dir, nothing if it isn't there.
func (k *container) file(name string) string {
	text, err := os.ReadFile(filepath.Join(k.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.t.Error(err)
	}
	return string(text)
}

// script writes a program that a client calls with what it was told, which it
// notes in the file "said", each line after the reason, and the rest of it.
func (k *container) script(rest string) string {
	k.t.Helper()
	name := filepath.Join(k.dir, "script")
	text := fmt.Sprintf("#!/bin/sh\nenv | sed \"s/^/${reason:-$1} /\" >>%s/said\n%s\n", k.dir, rest)
	if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
		k.t.Fatal(err)
	}
	return name
}

// write puts a file into k.dir.
func (k *container) write(name, text string) {
	k.t.Helper()
	if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// need skips the test if a program isn't there.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s: %v", program, err)
	}
}

// wants checks that each of the texts is in what a client was told.
func wants(t *testing.T, said string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("%q is not in what the client said:\n%s", text, said)
		}
	}
}

// await runs check until it is true.
func await(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !check(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 60 s", what)
		}
	}
}
