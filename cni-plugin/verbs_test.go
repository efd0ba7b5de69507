// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"sluice/api"
)

// TestCodes: what the daemon refuses has the code of the specification.
func TestCodes(t *testing.T) {
	for _, tt := range []struct {
		refuse api.Error
		want   uint
	}{
		{api.Error{Code: api.CodeInvalid, Field: "mac"}, types.ErrInvalidNetworkConfig},
		{api.Error{Code: api.CodeInvalid, Field: "ifname"}, types.ErrInvalidEnvironmentVariables},
		{api.Error{Code: api.CodeOutOfRange, Field: "ip"}, types.ErrInvalidNetworkConfig},
		{api.Error{Code: api.CodeNotFound, Field: "netns"}, types.ErrInvalidNetNS},
		{api.Error{Code: api.CodeNotFound, Field: "container"}, types.ErrUnknownContainer},
		{api.Error{Code: api.CodeNotFound, Field: "network"}, types.ErrInvalidNetworkConfig},
		{api.Error{Code: api.CodeExists, Field: "ifname"}, errExists},
		{api.Error{Code: api.CodeInUse, Field: "ip"}, errInUse},
		{api.Error{Code: api.CodeExhausted, Field: "ip"}, errExhausted},
		{api.Error{Code: api.CodeUnavailable}, types.ErrTryAgainLater},
		{api.Error{Code: api.CodeInternal}, types.ErrInternal},
	} {
		d := newDaemon(t)
		d.refuse = &tt.refuse
		d.refuse.Message = "because"
		out, failed := d.run("ADD", text("1.1.0", subnets))
		if want := fmt.Sprintf(`"code": %d,`, tt.want); !failed || !strings.Contains(out, want) || !strings.Contains(out, tt.refuse.Field) {
			t.Errorf("%+v: got %s, want %s", tt.refuse, out, want)
		}
	}
}

// TestNoDaemon: an ADD can be tried again, and a DEL is left for later.
func TestNoDaemon(t *testing.T) {
	d := newDaemon(t)
	if err := os.Remove(filepath.Join(d.dir, "sluiced.sock")); err != nil {
		t.Fatal(err)
	}
	if out, failed := d.run("ADD", text("1.1.0", subnets)); !failed || !strings.Contains(out, `"code": 11,`) {
		t.Errorf("ADD: %s", out)
	}
	if out, failed := d.run("STATUS", text("1.1.0", subnets)); !failed || !strings.Contains(out, `"code": 50,`) {
		t.Errorf("STATUS: %s", out)
	}
	for range 2 {
		if out, failed := d.run("DEL", text("1.1.0", subnets), "CNI_NETNS="); failed {
			t.Errorf("DEL: %s", out)
		}
	}
	left, err := api.CNILeftDels(filepath.Join(d.dir, "state"))
	if err != nil || len(left) != 1 {
		t.Fatalf("left are %v, %v", left, err)
	}
	for _, l := range left {
		if want := (api.CNIKey{Config: "pods", Container: "0123456789abcdef", IfName: "eth0"}); l.CNIKey != want || l.Came == (api.Moment{}) {
			t.Errorf("left is %+v", l)
		}
	}
}

// TestStatus: 50 if an ADD would fail, 51 if nothing works.
func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		status api.CNIStatus
		more   string
		want   string
	}{
		{api.CNIStatus{Dataplane: true, Network: true, Free: true}, subnets, ""},
		{api.CNIStatus{Dataplane: true}, subnets, ""}, // the first ADD declares it
		{api.CNIStatus{Dataplane: true, Network: true}, subnets, `"code": 50,`},
		{api.CNIStatus{Network: true, Free: true}, subnets, `"code": 51,`},
		{api.CNIStatus{Dataplane: true}, `,"network":"blue"`, `"code": 50,`},
	} {
		d := newDaemon(t)
		d.status = tt.status
		out, failed := d.run("STATUS", text("1.1.0", tt.more))
		if failed != (tt.want != "") || !strings.Contains(out, tt.want) {
			t.Errorf("%+v: got %s, want %s", tt.status, out, tt.want)
		}
	}
}

// TestGC: both keys of the list, and none.
func TestGC(t *testing.T) {
	const one = `[{"containerID":"a","ifname":"eth0"}]`
	for _, tt := range []struct{ more, want string }{
		{`,"cni.dev/valid-attachments":` + one, `"valid":[{"config":"pods","container":"a","ifname":"eth0"}]`},
		{`,"cni.dev/attachments":` + one, `"valid":[{"config":"pods","container":"a","ifname":"eth0"}]`},
		{`,"cni.dev/valid-attachments":[]`, `"valid":null`},
		{`,"cni.dev/valid-attachments":null,"cni.dev/attachments":null`, `"valid":null`},
	} {
		d := newDaemon(t)
		if out, failed := d.run("GC", text("1.1.0", subnets+tt.more)); failed || !strings.Contains(d.asked[0], tt.want) || !strings.Contains(d.asked[0], `"began":{"boot":"`) {
			t.Errorf("%s: got %s, asked %q", tt.more, out, d.asked)
		}
	}
	d := newDaemon(t)
	if out, failed := d.run("GC", text("1.1.0", subnets)); failed || len(d.asked) > 0 {
		t.Errorf("without a list: got %s, asked %q", out, d.asked)
	}
	for _, more := range []string{`,"cni.dev/attachments":{}`, `,"cni.dev/valid-attachments":[{"containerID":"a"}]`} {
		d := newDaemon(t)
		if out, failed := d.run("GC", text("1.1.0", subnets+more)); !failed || len(d.asked) > 0 {
			t.Errorf("%s: got %s, asked %q", more, out, d.asked)
		}
	}
}

// TestCheck: the daemon is asked for what ADD said, in the form of each version.
func TestCheck(t *testing.T) {
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		d := newDaemon(t)
		prev, failed := d.run("ADD", text(version, subnets))
		if failed {
			t.Fatal(prev)
		}
		if out, failed := d.run("CHECK", text(version, subnets+`,"prevResult":`+prev)); failed {
			t.Errorf("%s: %s", version, out)
		}
		var asked api.CNICheckRequest
		_, body, _ := strings.Cut(d.asked[1], " {")
		if err := json.Unmarshal([]byte("{"+body), &asked); err != nil {
			t.Fatal(err)
		}
		if asked.MAC != "02:00:00:00:00:02" || len(asked.Addresses) != 2 || asked.Netns != "/run/netns/web" || len(asked.Routes) != 2 {
			t.Errorf("%s: asked %+v", version, asked)
		}
		d.differ = []string{"the interface is down", "it has no address fd85::2/64"}
		out, failed := d.run("CHECK", text(version, subnets+`,"prevResult":`+prev))
		if !failed || !strings.Contains(out, "the interface is down; it has no address") || !strings.Contains(out, `"code": 103,`) {
			t.Errorf("%s: %s", version, out)
		}
	}
	if out, failed := newDaemon(t).run("CHECK", text("1.1.0", subnets)); !failed || !strings.Contains(out, "prevResult: missing") {
		t.Errorf("without a result: %s", out)
	}
}

// TestVersion: what the plugin says of itself.
func TestVersion(t *testing.T) {
	out, failed := newDaemon(t).run("VERSION", text("1.1.0", ""))
	if failed || !strings.Contains(out, `"supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]`) {
		t.Errorf("got %s", out)
	}
	if out, failed := newDaemon(t).run("ADD", text("0.2.0", subnets)); !failed || !strings.Contains(out, `"code": 1,`) {
		t.Errorf("an old version: %s", out)
	}
}
