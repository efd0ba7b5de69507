// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/lab"
	"sluice/test/steps"
)

func TestMain(m *testing.M) {
	steps.Main()
	os.Exit(m.Run())
}

// TestPluginKilledAtEachStep kills the CNI plugin before each of its system calls in an ADD
// and in a DEL, with and without a daemon. The DEL that a runtime sends then succeeds, and
// nothing is left.
func TestPluginKilledAtEachStep(t *testing.T) {
	l := lab.New(t)
	home, pod := l.NS("home"), l.NS("pod")
	d := l.DaemonIn(home, "networks: [{name: pods, subnets: [10.44.0.0/28]}]\n")
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","type":"sluice","network":"pods","socket":%q,"stateDir":%q}`,
		d.Socket(), filepath.Join(l.Dir(), "state"))
	for _, tt := range []struct{ before, verb string }{{"DEL", "ADD"}, {"ADD", "DEL"}} {
		n := 1
		for ; ; n++ {
			plugin(t, l, pod, tt.before, conf)
			if !killPlugin(t, l, pod, tt.verb, conf, n) {
				break
			}
			plugin(t, l, pod, "DEL", conf)
			if left := d.Links(); len(left) > 0 {
				t.Fatalf("%s, killed at step %d, then DEL: left are %+v", tt.verb, n, left)
			}
		}
		if n < 3 {
			t.Errorf("%s has %d steps", tt.verb, n-1)
		}
	}
	plugin(t, l, pod, "ADD", conf)
	pod.Ping(d.Gateway(lab.V4))
	d.Stop()
	n := 1
	for ; killPlugin(t, l, pod, "DEL", conf, n); n++ {
	}
	if n < 3 {
		t.Errorf("DEL without a daemon has %d steps", n-1)
	}
	d.Start() // and finds what the last one has left for it
	if left := d.Links(); len(left) > 0 {
		t.Errorf("after a DEL without a daemon: left are %+v", left)
	}
	plugin(t, l, pod, "DEL", conf)
}

// killPlugin runs a verb and kills the plugin at its n-th step; it is false if it has ended
// before that, which it must do well.
func killPlugin(t *testing.T, l *lab.Lab, n *lab.NS, verb, conf string, at int) (killed bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args, env := steps.Wrap(self, []string{l.Binary("cni/sluice")}, pluginEnv(n, verb))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	w, err := steps.Watch(cmd.Process.Pid, r)
	if err != nil {
		t.Fatal(err)
	}
	w.At(at, func() { _ = cmd.Process.Kill() })
	_, _ = in.Write([]byte(conf)) // unless it is dead already
	_ = in.Close()
	text := new(strings.Builder)
	_, _ = r.WriteTo(text)
	err = cmd.Wait()
	if killed = w.Seen() >= at; !killed && err != nil {
		t.Errorf("%s: %v\n%s", verb, err, text)
	}
	return killed
}
