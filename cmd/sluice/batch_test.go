// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/api"
)

// batched runs a batch from standard input.
func batched(t *testing.T, a *answers, options, text string) (code int, out, errs string) {
	t.Helper()
	a.asked = new(log)
	var stdout, stderr bytes.Buffer
	c := &cli{out: &stdout, err: &stderr, in: strings.NewReader(text), now: clock}
	args := append([]string{"--socket", a.listen(t)}, strings.Fields(options)...)
	code = c.run(t.Context(), args)
	return code, stdout.String(), stderr.String()
}

func TestBatch(t *testing.T) {
	for name, tc := range map[string]struct {
		options, text string
		asked         []string // of the daemon; a transaction is a line for each command
		out, errs     string
		code          int
	}{
		"nothing": {"-b -", "# nothing\n\n", nil, "", "", 0},
		"one transaction": {
			"-batch -", "route add 10.0.0.0/8 via 10.1.0.1 # here\nru a from 10.9.0.0/16 \\\n  lookup 100\n\nbridge\n",
			nil, "", "object \"bridge\" is unknown, try \"sluice help\"\nCommand failed -:5\n", exitUsage,
		},
		"objects mixed": {
			"-n blue -b -", "r a 10.0.0.0/8 via 10.1.0.1\nru del pref 9\nf ap 02:00:00:00:00:09 dev red\nvlan add dev red vid 10\nnei repl 10.0.0.1 lladdr 02:00:00:00:00:01 dev blue\nvrf add v table 9\nl ch red isolated on\na d 10.0.0.1/8 dev x\n",
			[]string{
				"route add 10.0.0.0/8 via 10.1.0.1 in blue", "rule del pref 9 in blue", "fdb append 02:00:00:00:00:09 dev red in blue",
				"vlan add dev red vid 10 in blue", "neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev blue in blue",
				"vrf add v table 9 in blue", "link set red isolated on in blue", "addr del 10.0.0.1/8 dev x in blue",
			},
			"", "", 0,
		},
		"families": {
			"-6 -b -", "route flush table 9\n-4 route flush table 8\n-6 ro sh 10.99.0.0/16\n",
			[]string{"route -6 flush table 9", "route -4 flush table 8", "/v1/routes?words=-6+10.99.0.0%2F16"},
			"", "", 0,
		},
		"a show sees what is before it": {
			"-b -", "vrf add v table 9\nvrf show\nvrf del v\n",
			[]string{"vrf add v table 9", "/v1/vrfs", "vrf del v"},
			"red               100\n", "", 0,
		},
		"the kernel's refusal": {
			"-b -", "\nroute add 10.0.0.0/8 dev blue\nroute add taken\nroute add 10.1.0.0/16 dev blue\n",
			[]string{"route add 10.0.0.0/8 dev blue", "route add taken"},
			"",
			"RTNETLINK answers: File exists\nCommand failed -:3\n", exitRefused,
		},
		"with -force": {
			"-force -batch -", "route add taken\nfrob\nroute add 10.1.0.0/16 dev blue\nrule add taken\nroute 'x\n",
			nil, "", "object \"frob\" is unknown, try \"sluice help\"\nCommand failed -:2\nunterminated quoted string (see \"sluice --help\")\nCommand failed -:5\n", exitUsage,
		},
		"-force goes on": {
			"-force -batch -", "route add taken\nfrob\nroute save\nroute add 10.1.0.0/16 dev blue\nrule add taken\n",
			[]string{"force route add taken", "force route add 10.1.0.0/16 dev blue", "force rule add taken"},
			"",
			"object \"frob\" is unknown, try \"sluice help\"\nCommand failed -:2\nroute save is not supported (see \"sluice --help\")\nCommand failed -:3\n" +
				"RTNETLINK answers: File exists\nCommand failed -:1\nRTNETLINK answers: File exists\nCommand failed -:5\n", exitUsage,
		},
		"a show that finds nothing": {
			"-b -", "link show nosuch\nvrf add v table 9\n",
			[]string{"/v1/devices?words=dev+nosuch"},
			"",
			"link \"nosuch\" does not exist\nCommand failed -:1\n", exitRefused,
		},
		"what isn't ip's": {"-b -", "attach red\n", nil, "", "object \"attach\" is unknown, try \"sluice help\"\nCommand failed -:1\n", exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			a := &answers{}
			code, out, errs := batched(t, a, tc.options, tc.text)
			if code != tc.code || out != tc.out || errs != tc.errs {
				t.Errorf("exit code %d, want %d\n%s\n%s\nwant\n%s\n%s", code, tc.code, out, errs, tc.out, tc.errs)
			}
			if asked := a.asked.take(); !slices.Equal(asked, tc.asked) {
				t.Errorf("it asked %q, want %q", asked, tc.asked)
			}
		})
	}
}

func TestBatchFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(name, []byte("route add taken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errs := batched(t, &answers{}, "-b "+name, "")
	if want := "RTNETLINK answers: File exists\nCommand failed " + name + ":1\n"; code != exitRefused || errs != want {
		t.Errorf("exit code %d, %q, want %q", code, errs, want)
	}
	if code, _, errs := batched(t, &answers{}, "-b "+name+".none", ""); code != exitRefused || !strings.Contains(errs, "no such file") {
		t.Errorf("no such file: exit code %d, %q", code, errs)
	}
}

func TestBatchIsBounded(t *testing.T) {
	text := strings.Repeat("route flush table 9\n", api.MaxCommands+1)
	a := &answers{}
	code, _, errs := batched(t, a, "-b -", text)
	if code != exitUsage || !strings.Contains(errs, fmt.Sprint(api.MaxCommands)) || len(a.asked.take()) != 0 {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

func TestBatchWithoutDaemon(t *testing.T) {
	c := &cli{out: new(bytes.Buffer), err: new(bytes.Buffer), in: strings.NewReader("route flush table 9\n"), now: clock}
	code := c.run(t.Context(), []string{"--socket", filepath.Join(t.TempDir(), "none"), "-b", "-"})
	if code != exitNoDaemon {
		t.Errorf("exit code %d", code)
	}
}

// TestAttachSaysAll checks that every flag of attach reaches the request.
func TestAttachSaysAll(t *testing.T) {
	f := attachFlags{
		offload: "on", configure: "none", set: []string{"isolated on", "guard mac,ip"}, vlan: []string{"vid 10 pvid untagged", "vid 20"},
		fdb: []string{"02:00:00:00:00:09 vlan 10"}, mdb: []string{"239.1.1.1"}, table: "uplink", routeTable: 7,
	}
	r, err := f.request("red")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.Set, "|"); got != "isolated|on|guard|mac,ip" {
		t.Errorf("set is %q", got)
	}
	if len(r.VLAN) != 2 || len(r.FDB) != 1 || len(r.MDB) != 1 || r.Table != "uplink" || r.RouteTable != 7 || r.Configure != "none" {
		t.Errorf("request is %+v", r)
	}
}

func TestToldErrorsKeepTheirCode(t *testing.T) {
	for err, code := range map[error]int{
		&toldError{usagef("x")}:                                        exitUsage,
		&operationError{&toldError{usagef("x")}}:                       exitUsage,
		&operationError{&toldError{errors.New("x")}}:                   exitRefused,
		&operationError{&toldError{api.ErrDaemonDown}}:                 exitNoDaemon,
		&operationError{&toldError{&api.Error{Code: api.CodeInvalid}}}: exitRefused,
		&operationError{context.DeadlineExceeded}:                      exitRefused,
	} {
		if got := exitCode(err); got != code {
			t.Errorf("%v: exit code %d, want %d", err, got, code)
		}
	}
}
