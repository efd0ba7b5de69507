// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestMain lets the test's own program be the plugin.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// daemon is a sluiced that notes what it is asked, and answers as it is told.
type daemon struct {
	t      *testing.T
	dir    string
	asked  []string
	refuse *api.Error
	reply  api.CNIAddReply
	differ []string
	status api.CNIStatus
}

// newDaemon starts one. Its answer to an ADD is of both families.
func newDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir(), status: api.CNIStatus{Dataplane: true, Network: true, Free: true}}
	d.reply = api.CNIAddReply{
		Attachment: api.Attachment{
			Name: "shop.web-0123456789", IfName: "eth0", MAC: "02:00:00:00:00:02", MTU: 1500,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.85.0.2/24"), netip.MustParsePrefix("fd85::2/64")},
		},
		Gateways: []netip.Addr{netip.MustParseAddr("10.85.0.1"), netip.MustParseAddr("fd85::1")},
		Routes: []api.CNIRoute{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), GW: netip.MustParseAddr("10.85.0.1")},
			{Dst: netip.MustParsePrefix("192.0.2.0/24"), GW: netip.MustParseAddr("10.85.0.9"), MTU: 1400, Priority: 5},
		},
	}
	l, err := net.Listen("unix", filepath.Join(d.dir, "sluiced.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: d}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return d
}

// ServeHTTP answers one request.
func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	_, _ = body.ReadFrom(r.Body)
	d.asked = append(d.asked, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+body.String()))
	if d.refuse != nil {
		api.WriteError(w, d.refuse)
		return
	}
	var out any = struct{}{}
	switch r.URL.Path {
	case api.PathCNIAdd:
		out = d.reply
	case api.PathCNICheck:
		out = api.CNICheckReply{Differences: d.differ}
	case api.PathCNIGC:
		out = api.CNIGCReply{Removed: []string{}}
	case api.PathCNIStatus:
		out = d.status
	}
	_ = json.NewEncoder(w).Encode(out)
}

// run runs the plugin and returns what it prints; failed says that it had to report an
// error.
func (d *daemon) run(command, conf string, env ...string) (out string, failed bool) {
	d.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append([]string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=0123456789abcdef", "CNI_NETNS=/run/netns/web", "CNI_IFNAME=eth0",
		"CNI_PATH=" + d.dir, "PATH=" + os.Getenv("PATH"), "CNI_NETNS_OVERRIDE=1",
	}, env...)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(conf, "DIR", d.dir))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return strings.ReplaceAll(stdout.String()+stderr.String(), d.dir, "DIR"), err != nil
}

// text is a configuration with further options.
func text(version, more string) string {
	return `{"cniVersion":"` + version + `","name":"pods","type":"sluice","socket":"DIR/sluiced.sock","stateDir":"DIR/state"` + more + `}`
}

const subnets = `,"ipam":{"ranges":[[{"subnet":"10.85.0.0/24"}],[{"subnet":"fd85::/64"}]]}`

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestResults: the result of ADD, as each version of the specification has it.
func TestResults(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		out, failed := newDaemon(t).run("ADD", text(version, subnets+`,"dns":{"nameservers":["10.85.0.1"]}`))
		if failed {
			t.Fatal(out)
		}
		golden(t, "result-"+version+".json", out)
	}
}

// TestRequests: what the daemon is asked, for the options that users of other plugins
// have.
func TestRequests(t *testing.T) {
	for name, tt := range map[string]struct{ more, args string }{
		"plain":    {subnets, "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"},
		"declared": {`,"network":"blue","mtu":1400`, ""},
		"bridge": {`,"bridge":"cni0","isDefaultGateway":true,"ipMasq":true,"hairpinMode":true,"portIsolation":true,"mtu":1400,"promiscMode":true` +
			`,"ipam":{"subnet":"10.85.0.0/24","rangeStart":"10.85.0.10","rangeEnd":"10.85.0.20","gateway":"10.85.0.254","exclude":["10.85.0.12"],"routes":[{"dst":"0.0.0.0/0"},{"dst":"192.0.2.0/24","gw":"10.85.0.9","mtu":1300}]}`, ""},
		"vlan":      {`,"vlan":10,"vlanTrunk":[{"id":20},{"minID":30,"maxID":39}]` + subnets, ""},
		"trunk":     {`,"vlanTrunk":[{"id":20}],"macspoofchk":false` + subnets, ""},
		"runtime":   {`,"runtimeConfig":{"ips":["10.85.0.9/24","fd85::9"],"mac":"02:00:00:00:00:09","aliases":{"pods":["www"]},"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},{"hostPort":53,"containerPort":5353,"protocol":"UDP","hostIP":"127.0.0.1"},{"containerPort":9}]}` + subnets, ""},
		"args":      {`,"args":{"cni":{"ips":["10.85.0.7"],"labels":[{"key":"tier","value":"front"}]}}` + subnets, ""},
		"bandwidth": {`,"runtimeConfig":{"bandwidth":{"ingressRate":8000000,"ingressBurst":4294967295,"egressRate":16000000,"egressBurst":0}}` + subnets, ""},
		// What the file says stands above what the runtime says.
		"bounds": {`,"ingressRate":8000000,"ingressBurst":100000,"runtimeConfig":{"bandwidth":{"egressRate":16000000}}` + subnets, ""},
		"env":    {subnets, "IP=10.85.0.8;MAC=02:00:00:00:00:08"},
		"bare":   {`,"isDefaultGateway":false,"uplink":"none","table":"blue","guard":"mac","offload":false,"holdPorts":false` + subnets, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			if out, failed := d.run("ADD", text("1.1.0", tt.more), "CNI_ARGS="+tt.args); failed {
				t.Fatal(out)
			}
			_, body, _ := strings.Cut(d.asked[0], " {")
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, []byte("{"+body), "", "  "); err != nil {
				t.Fatal(err)
			}
			golden(t, "request-"+name+".json", pretty.String()+"\n")
		})
	}
}

// TestRefused: what is wrong is named, and the daemon is not asked.
func TestRefused(t *testing.T) {
	var all strings.Builder
	for _, tt := range []struct{ more, args string }{
		{`,"nosuch":1` + subnets, ""},
		{`,"mtu":"big"` + subnets, ""},
		{`,"ipam":{"ranges":[[{"subnet":"10.85.0.0/24","nosuch":1}]]}`, ""},
		{`,"ipam":{"range":[]}`, ""},
		{`,"ipam":{"ranges":[[{"subnet":"10.85.0"}]]}`, ""},
		{`,"ipam":{"ranges":[[{"subnet":"10.85.0.0/24"}],[{"subnet":"10.86.0.0/24"}]]}`, ""},
		{`,"ipam":{"ranges":[[{"subnet":"10.85.0.0/24","rangeStart":"10.86.0.1"}]]}`, ""},
		{`,"ipam":{"ranges":[[{"subnet":"10.85.0.0/24","rangeStart":"10.85.0.9","rangeEnd":"10.85.0.3"}]]}`, ""},
		{`,"ipam":{"ranges":[[{"subnet":"10.85.0.0/24","gateway":"10.86.0.1"}]]}`, ""},
		{`,"ipam":{"ranges":[[]]}`, ""},
		{`,"ipam":{"ranges":[[{"subnet":"10.85.0.0/24"}]],"routes":[{"dst":"x"}]}`, ""},
		{`,"ipam":{"ranges":[[{"subnet":"10.85.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0","gw":"fd00::1"}]}`, ""},
		{`,"ipam":{"type":"dhcp"}`, ""},
		{``, ""},
		{`,"network":"blue","ipMasq":true`, ""},
		{`,"network":"blue"` + subnets, ""},
		{`,"vlan":5000` + subnets, ""},
		{`,"vlanTrunk":[{"minID":5}]` + subnets, ""},
		{`,"uplink":"nic"` + subnets, ""},
		{`,"forceAddress":true` + subnets, ""},
		{`,"enabledad":true` + subnets, ""},
		{`,"runtimeConfig":{"ips":["10.85.0.1","10.85.0.2"]}` + subnets, ""},
		{`,"runtimeConfig":{"portMappings":[{"hostPort":70000,"containerPort":80}]}` + subnets, ""},
		{`,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"icmp"}]}` + subnets, ""},
		{`,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"x"}]}` + subnets, ""},
		{`,"egressBurst":1000` + subnets, ""},
		{`,"runtimeConfig":{"bandwidth":{"ingressRate":7}}` + subnets, ""},
		{`,"runtimeConfig":{"bandwidth":{"ingressRate":"fast"}}` + subnets, ""},
		{`,"runtimeConfig":{"bandwidth":{"ingressRate":-1}}` + subnets, ""},
		{`,"prevResult":{"cniVersion":"1.1.0","interfaces":[]}` + subnets, ""},
		{subnets, "NOSUCH=1"},
		{subnets, "nonsense"},
	} {
		d := newDaemon(t)
		out, failed := d.run("ADD", text("1.1.0", tt.more), "CNI_ARGS="+tt.args)
		if !failed || len(d.asked) > 0 {
			t.Errorf("%s %s: got %s, and the daemon was asked %q", tt.more, tt.args, out, d.asked)
		}
		all.WriteString("# " + strings.TrimPrefix(tt.more, ",") + " " + tt.args + "\n" + out + "\n")
	}
	golden(t, "refused.txt", all.String())
}
