// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	kt "sluice/test/kerneltest"
	"sluice/test/steps"
	"sluice/veth"
)

// makerEnv makes the test binary a process that makes a host end, and may be killed.
const makerEnv = "SLT_VETH_MAKER"

func TestMain(m *testing.M) {
	steps.Main()
	if kind, places, ok := strings.Cut(os.Getenv(makerEnv), " "); ok {
		if err := makerProcess(kind, strings.Fields(places)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// makerProcess makes a host end in the first of two namespaces, as soon as it is told to.
func makerProcess(kind string, places []string) error {
	host, err := netns.GetFromPath(places[0])
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPath(places[1])
	if err != nil {
		return err
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	if kind == "pair" {
		return veth.CreatePair(killedPair(host, ns))
	}
	_, _, err = killedNIC(host, ns, kind).Take()
	return err
}

func killedPair(host, ns netns.NsHandle) veth.PairConfig {
	c := config(host, ns, 7)
	for _, p := range c.Addresses {
		c.Gateways = append(c.Gateways, p.Masked().Addr().Next())
	}
	return c
}

// killedNIC is moved, or shared by a macvlan.
func killedNIC(host, ns netns.NsHandle, kind string) veth.NIC {
	n := veth.NIC{HomeNS: ns, HostNS: host, Name: "wan0", HostName: "slt-7", ID: "sluice:7", MTU: 1300}
	if kind == "shared" {
		n.Share, n.HostIndex, n.MAC = "bridge", 1<<20, mac(7)
	}
	return n
}

// TestKilledAtEachStep kills the maker of a host end before each of its steps: what has
// the alias by then lacks nothing; an interface that was moved, if it is up.
func TestKilledAtEachStep(t *testing.T) {
	for kind, whole := range map[string]func(*testing.T, netns.NsHandle, netns.NsHandle){
		"pair": wholePair, "moved": wholeNIC, "shared": wholeNIC,
	} {
		t.Run(kind, func(t *testing.T) {
			for n := 1; ; n++ {
				host, ns := kt.NewNS(t), kt.NewNS(t)
				if kind != "pair" {
					kt.RunIn(t, ns, "ip", "link", "add", "wan0", "type", "veth", "peer", "name", "far0")
				}
				steps, err := killedAt(t, n, kind, host, ns)
				ends, _ := veth.HostEnds(host)
				done := len(ends) == 1 && ends[0].Alias == "sluice:7" && (ends[0].Up || ends[0].NIC == "")
				if done {
					whole(t, host, ns)
				}
				if t.Failed() {
					t.Fatalf("killed before step %d", n)
				}
				if steps < n {
					if !done || err != nil {
						t.Errorf("without a kill: %+v, %v", ends, err)
					}
					t.Logf("%d steps", steps)
					return
				}
			}
		})
	}
}

// killedAt starts a maker, kills it before its n-th step, and returns how many it began.
func killedAt(t *testing.T, n int, kind string, host, ns netns.NsHandle) (int, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	place := func(ns netns.NsHandle) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns)) }
	args, env := steps.Wrap(self, []string{self}, append(os.Environ(), fmt.Sprintf("%s=%s %s %s", makerEnv, kind, place(host), place(ns))))
	cmd := exec.Command(args[0])
	cmd.Env, cmd.Stderr = env, os.Stderr
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if errIn != nil || errOut != nil || cmd.Start() != nil {
		t.Fatalf("no maker: %v, %v", errIn, errOut)
	}
	w, err := steps.Watch(cmd.Process.Pid, bufio.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	w.At(n, func() { _ = cmd.Process.Kill() })
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	return w.Seen(), err
}

func wholePair(t *testing.T, host, ns netns.NsHandle) {
	t.Helper()
	if out := kt.RunIn(t, host, "ip", "link", "show", "slt-7"); !strings.Contains(out, "NOARP") || !strings.Contains(out, "LOWER_UP") {
		t.Errorf("host end: %s", out)
	}
	c := killedPair(host, ns)
	has := kt.RunIn(t, ns, "ip", "addr") + kt.RunIn(t, ns, "ip", "route") + kt.RunIn(t, ns, "ip", "-6", "route")
	for i, p := range c.Addresses {
		for _, want := range []string{p.String(), "default via " + c.Gateways[i].String()} {
			if !strings.Contains(has, want) {
				t.Errorf("no %s in the container:\n%s", want, has)
			}
		}
	}
}

func wholeNIC(t *testing.T, host, _ netns.NsHandle) {
	t.Helper()
	out := kt.RunIn(t, host, "ip", "link", "show", "slt-7") + kt.RunIn(t, host, "ip", "addr", "show", "slt-7")
	for _, want := range []string{"NOARP", "ALLMULTI", "mtu 1300"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s: %s", want, out)
		}
	}
	if strings.Contains(out, "inet") {
		t.Errorf("it has an address: %s", out)
	}
}
