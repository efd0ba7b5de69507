// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
)

func TestReadRequestIsStrict(t *testing.T) {
	big := `{"netns":"` + strings.Repeat("x", api.MaxRequest) + `"}`
	tests := map[string]struct{ body, field, message string }{
		"unknown field":   {`{"netns":"red","ipp":"10.0.0.1"}`, "ipp", `request: unknown field "ipp"`},
		"wrong type":      {`{"netns":"red","mtu":"big"}`, "mtu", `request: field "mtu" must be int, not string`},
		"bad address":     {`{"netns":"red","ip":"10.0.0"}`, "", `request: ParseAddr("10.0.0")`},
		"trailing value":  {`{"netns":"red"}{}`, "", "request: more than one value"},
		"not JSON at all": {`netns=red`, "", "request: invalid character"},
		"empty":           {``, "", "request: EOF"},
		"too large":       {big, "", "request: the body is larger than 67108864 bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := api.ReadRequest(strings.NewReader(tt.body), new(api.AttachRequest))
			e, ok := errors.AsType[*api.Error](err)
			if !ok {
				t.Fatalf("error is %T (%v), want *api.Error", err, err)
			}
			if e.Code != api.CodeInvalid || e.Field != tt.field || !strings.HasPrefix(e.Message, tt.message) {
				t.Errorf("got %+v, want code invalid, field %q, message %q…", *e, tt.field, tt.message)
			}
		})
	}
}

func TestReadRequestAcceptsEveryField(t *testing.T) {
	off := false
	want := api.AttachRequest{
		Netns: "red", Network: "blue", Name: "n", IfName: "eth1",
		IP: netip.MustParseAddr("10.44.0.7"), IP6: netip.MustParseAddr("fd44::7"),
		MAC: "02:00:00:00:00:07", MTU: 1400, Offload: &off,
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got api.AttachRequest
	if err := api.ReadRequest(strings.NewReader(string(text)), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
}

// TestStableJSON holds the names that `-o json` prints.
func TestStableJSON(t *testing.T) {
	link := api.Link{Attachment: api.Attachment{
		ID: "1", Name: "red", Network: "blue", Netns: "/run/netns/red", IfName: "eth0", HostIfName: "sl1",
		Port: 3, MAC: "02:00:00:00:00:07", MTU: 1500, State: api.StateReady,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.44.0.2/24")},
	}, Stats: &api.Stats{Drops: map[string]uint64{"tx_full": 2, "too_big": 3}}}
	got, err := json.Marshal(link)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"id":"1","name":"red","network":"blue","netns":"/run/netns/red","ifname":"eth0","host_ifname":"sl1",` +
		`"port":3,"mac":"02:00:00:00:00:07","mtu":1500,"addresses":["10.44.0.2/24"],"offload":false,"state":"ready",` +
		`"stats":{"rx":{"packets":0,"bytes":0,"batches":0,"gso":0},"tx":{"packets":0,"bytes":0,"batches":0,"gso":0},` +
		`"flow_hits":0,"flow_misses":0,"flooded":0,"learned":0,"drops":{"too_big":3,"tx_full":2}}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("link (-want +got):\n%s", diff)
	}
	if n := link.Stats.Dropped(); n != 5 {
		t.Errorf("Dropped() = %d, want 5", n)
	}
}

func TestEveryCodeHasAStatusAndTravels(t *testing.T) {
	codes := []api.Code{
		api.CodeInvalid, api.CodeOutOfRange, api.CodeNotFound, api.CodeExists,
		api.CodeInUse, api.CodeExhausted, api.CodeUnavailable, api.CodeInternal,
	}
	for _, code := range codes {
		want := &api.Error{Code: code, Field: "ip", Message: "sorry"}
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) { api.WriteError(w, want) })
		_, err := c.Status(t.Context())
		got, ok := errors.AsType[*api.Error](err)
		if !ok || *got != *want {
			t.Errorf("%s: client saw %v, want %v", code, err, want)
		}
		if api.CodeOf(fmt.Errorf("attach: %w", err)) != code {
			t.Errorf("%s: CodeOf of the wrapped error is %s", code, api.CodeOf(err))
		}
	}
}

func TestWrappedErrorKeepsItsContext(t *testing.T) {
	inner := &api.Error{Code: api.CodeNotFound, Field: "netns", Message: "no namespace red"}
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { api.WriteError(w, fmt.Errorf("attach red: %w", inner)) })
	_, err := c.Attach(t.Context(), &api.AttachRequest{Netns: "red"})
	if api.CodeOf(err) != api.CodeNotFound || err.Error() != "attach red: no namespace red" {
		t.Errorf("got %q with code %s", err, api.CodeOf(err))
	}
}

func TestPlainErrorIsInternal(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { api.WriteError(w, errors.New("disk full")) })
	_, err := c.Links(t.Context(), "", false)
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeInternal || e.Message != "disk full" {
		t.Errorf("got %v", err)
	}
	if api.CodeOf(nil) != "" {
		t.Error("nil has a code")
	}
}

func TestQueriesCarryTheirParameters(t *testing.T) {
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.String()
		api.WriteReply(w, []api.Link{{Attachment: api.Attachment{Name: "red"}}})
	})
	links, err := c.Links(t.Context(), "blue", true)
	if err != nil || len(links) != 1 || links[0].Name != "red" {
		t.Fatalf("Links = %v, %v", links, err)
	}
	if want := "GET /v1/links?network=blue&stats=1"; got != want {
		t.Errorf("request was %q, want %q", got, want)
	}
}

func TestForeignAnswerIsReported(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "teapot", http.StatusTeapot) })
	_, err := c.Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("got %v, want the HTTP status", err)
	}
}

func TestDaemonDown(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for name, path := range map[string]string{"no socket": filepath.Join(dir, "none.sock"), "nobody listens": stale} {
		c := api.NewClient(path)
		_, err := c.Status(t.Context())
		if !errors.Is(err, api.ErrDaemonDown) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want ErrDaemonDown that names the socket", name, err)
		}
	}
}

func TestCancelledContext(t *testing.T) {
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// TestPermission becomes nobody for one call: root may open any socket.
func TestPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to drop it")
	}
	dir, err := os.MkdirTemp("/tmp", "slt-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Seteuid(65534); err != nil {
		t.Fatal(err)
	}
	_, err = api.NewClient(path).Status(t.Context())
	if e := syscall.Seteuid(0); e != nil {
		t.Fatal(e)
	}
	if !errors.Is(err, api.ErrPermission) {
		t.Errorf("got %v, want ErrPermission", err)
	}
}

// serve runs h behind a Unix socket and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc) *api.Client {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "slt-api-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	c := api.NewClient(filepath.Join(dir, "s"))
	t.Cleanup(func() {
		c.Close()
		srv.Close()
		os.RemoveAll(dir)
	})
	return c
}

func TestErrorsCarryNothingForATerminal(t *testing.T) {
	w := httptest.NewRecorder()
	api.WriteError(w, &api.Error{Code: api.CodeInvalid, Field: "a\x1b[2J", Message: "büro\n\x1b]0;x\x07"})
	var e api.Error
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Field != "a\ufffd[2J" || e.Message != "büro\n\ufffd]0;x\ufffd" {
		t.Errorf("got %+v, %v", e, err)
	}
}
